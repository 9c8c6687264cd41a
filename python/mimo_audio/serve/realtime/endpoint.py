"""GET /v1/realtime: a WebSocket that speaks OpenAI's realtime protocol."""

import asyncio
from contextlib import suppress

from fastapi import APIRouter, WebSocket
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect, WebSocketState

from mimo_audio.errors import MimoError
from mimo_audio.serve.errors import told, unavailable
from mimo_audio.serve.realtime import vad
from mimo_audio.serve.realtime.connection import Connection
from mimo_audio.serve.service import Service

router = APIRouter()
PROTOCOL = "realtime"  # what browsers offer beside their key
MOST_SESSIONS = 256  # at once; answers have limits of their own


class Socket:
    """Starlette's WebSocket as a `Wire`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str | bytes:
        """See Wire."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise ConnectionResetError
        text: str | None = message.get("text")
        return text if text is not None else b""  # events are text

    async def send(self, text: str) -> None:
        """See Wire."""
        try:
            await self._socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionResetError from error

    async def close(self) -> None:
        """See Wire."""
        if self._socket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
                await asyncio.wait_for(self._socket.close(), 1)


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """One session; ?model= may be anything, as there is one."""
    service: Service = socket.app.state.service
    sessions: set[Connection] = socket.app.state.__dict__.setdefault("realtime", set())
    wire = Socket(socket)
    try:
        if len(sessions) >= MOST_SESSIONS:
            raise unavailable(f"{len(sessions)} sessions are open already: come back later", service.retry_after())
        await asyncio.to_thread(vad.load)
        connection = Connection(wire, service)
    except MimoError as error:
        known = told(error)
        await socket.send_denial_response(JSONResponse(known.body(), known.status, known.headers))
        return
    await socket.accept(PROTOCOL if PROTOCOL in socket.scope.get("subprotocols", ()) else None)
    sessions.add(connection)
    try:
        await connection.run()
    finally:
        sessions.discard(connection)
        await wire.close()
