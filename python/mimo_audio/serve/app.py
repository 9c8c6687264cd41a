"""The application: every endpoint, the page at /, and what is around them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from mimo_audio.errors import MimoError
from mimo_audio.serve.endpoints import chat, health, models, playground, speech, transcriptions, voices
from mimo_audio.serve.errors import ServeError, told
from mimo_audio.serve.gate import Gate
from mimo_audio.serve.realtime import endpoint as realtime
from mimo_audio.serve.responses import GONE, ClientGoneError
from mimo_audio.serve.service import Service
from mimo_audio.serve.settings import Settings

LOG = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"


def create_app(service: Service, settings: Settings = Settings()) -> FastAPI:  # noqa: B008
    """The application of a service; it loads the model when it starts, and answers /health meanwhile."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(service.start())
        yield
        await service.stop()
        starting.cancel()

    app = FastAPI(title="mimo-audio", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service, app.state.settings = service, settings
    for endpoint in (health, models, speech, transcriptions, chat, voices, playground, realtime):
        app.include_router(endpoint.router)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    for kind in (MimoError, Exception):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientGoneError, _on_gone)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["*"], allow_headers=["*"],
            expose_headers=["*"],
        )  # fmt: skip
    app.add_middleware(Gate, service=service, settings=settings)
    return app


async def _on_error(_: Request, error: Exception) -> Response:
    known = told(error)
    if not isinstance(error, MimoError):
        LOG.error("a request failed", exc_info=error)
    return JSONResponse(known.body(), known.status, known.headers)


async def _on_invalid(_: Request, error: Exception) -> Response:
    """The first field that is wrong."""
    assert isinstance(error, RequestValidationError)
    first: Any = error.errors()[0]
    where = ".".join(map(str, first["loc"][1:]))
    said = ServeError(400, f"{where or 'body'}: {first['msg']}", "invalid_value", where or None)
    return JSONResponse(said.body(), said.status)


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = ServeError(error.status_code, str(error.detail), "not_found" if error.status_code == 404 else None)
    return JSONResponse(said.body(), said.status, error.headers)


async def _on_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=GONE)
