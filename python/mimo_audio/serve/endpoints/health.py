"""`/health`: the process answers. `/ready`: the model does, with finite sound. `/metrics`: for Prometheus."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from mimo_audio.serve.endpoints.common import ServiceOf

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, Any]:
    """200 as long as the process answers."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(service: ServiceOf) -> Response:
    """200 once a request has been answered with finite sound, 503 with the reason before and after."""
    state = {"status": service.state, "model": service.name, "reason": service.reason or None}
    return JSONResponse(state, 200 if service.ready else 503, None if service.ready else {"Retry-After": "5"})


@router.get("/metrics")
async def metrics(service: ServiceOf) -> Response:
    """Counters and times in Prometheus' text format."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
