"""Answers that are written while they are made, to clients that may leave, stall or read slowly."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from mimo_audio.serve.errors import told

LOG = logging.getLogger(__name__)
T = TypeVar("T")
GONE = 499  # a client that went away: nobody hears of it, the log does


class ClientGoneError(Exception):
    """Whoever asked is not there any more."""


class Streamed(Response):
    """Pieces of bytes as they are made. Nothing is sent before the first, so that its error is an HTTP error.

    An error after that ends the connection without the end of the body: what came is not taken for all. A client that
    goes away, or takes nothing for `stall` seconds, ends the making at once.
    """

    def __init__(
        self, pieces: AsyncIterator[bytes], media_type: str, stall: float, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(None, 200, headers, media_type)
        del self.headers["content-length"]
        self._pieces, self._stall = pieces, stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def pump() -> None:
            first = await anext(self._pieces, b"")
            await self._send(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(send, {"type": "http.response.body", "body": first, "more_body": True})
            try:
                async for piece in self._pieces:
                    await self._send(send, {"type": "http.response.body", "body": piece, "more_body": True})
            except ClientGoneError:
                raise
            except Exception as error:
                LOG.warning("an answer broke off: %s", told(error), exc_info=told(error).status == 500)
                raise ClientGoneError from error
            await self._send(send, {"type": "http.response.body", "body": b""})

        try:
            with suppress(ClientGoneError):
                await while_there(receive, pump())
        finally:
            await self._pieces.aclose()  # type: ignore[attr-defined]  # an async generator

    async def _send(self, send: Send, message: Message) -> None:
        try:
            await asyncio.wait_for(send(message), self._stall)
        except (asyncio.TimeoutError, OSError) as error:
            raise ClientGoneError from error


async def while_there(receive: Receive, work: Awaitable[T]) -> T:
    """Runs work until it is done or whoever asked goes away: then it is cancelled, and ClientGoneError raised."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_leaves(receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientGoneError
        return await doing
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer_while_there(request: Request, work: Awaitable[T]) -> T:
    """`while_there` for an endpoint whose body has been read."""
    return await while_there(request.receive, work)


def sse(data: dict[str, Any], event: str | None = None) -> bytes:
    """An object as a server-sent event."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


async def sse_events(objects: AsyncIterator[dict[str, Any]], done: bool = False) -> AsyncIterator[bytes]:
    """Objects as server-sent events; an error that comes after the first is one too. done: ends with [DONE]."""
    begun = False
    try:
        async for item in objects:
            yield sse(item)
            begun = True
    except Exception as error:
        if not begun:
            raise
        LOG.warning("an answer broke off: %s", told(error), exc_info=told(error).status == 500)
        yield sse(told(error).body())
        return
    finally:
        await objects.aclose()  # type: ignore[attr-defined]  # an async generator
    if done:
        yield b"data: [DONE]\n\n"
