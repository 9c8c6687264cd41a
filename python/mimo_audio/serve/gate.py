"""Before every endpoint: request ids, who may ask (API keys, origins, hosts), how often, how much; a log."""

import logging
import time
from collections import OrderedDict
from secrets import token_hex

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mimo_audio.serve.errors import ServeError, unavailable
from mimo_audio.serve.service import Service
from mimo_audio.serve.settings import Settings, is_loopback

LOG = logging.getLogger("mimo_audio.serve.access")
GUARDED = ("/v1", "/metrics", "/openapi.json")  # all else is open: /health, /ready and the page
SUBPROTOCOL = "openai-insecure-api-key."  # how a browser's WebSocket says its key
CLIENTS = 10_000  # whose rate is remembered


class Gate:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp, service: Service, settings: Settings) -> None:
        self._app, self._service, self._settings = app, service, settings
        self._rates = Rates(settings.limits.per_minute)
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        request_id = f"req_{token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        self._inside += 1
        try:
            self._check(scope, headers)
        except ServeError as error:
            response = JSONResponse(error.body(), error.status, error.headers)
            await response(scope, receive, sending)
        else:
            await self._app(scope, Body(receive, self._settings.limits.upload_bytes), sending)
        finally:
            self._inside -= 1
            self._log(scope, status, began, request_id)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises ServeError."""
        path, settings = scope["path"], self._settings
        host = headers.get("host", "").rpartition(":")
        name = host[0] if host[1] and host[2].isdigit() else headers.get("host", "")
        if settings.loopback and name and not is_loopback(name):  # a page whose name was made to lead here
            raise ServeError(403, f"host: expected this machine's name, got {name!r:.80}", "bad_host")
        origin = headers.get("origin")
        known = (*settings.origins, f"http://{headers.get('host')}", f"https://{headers.get('host')}")
        if origin and "*" not in known and origin not in known:
            raise ServeError(403, f"origin: {origin!r:.80} may not ask this server (--cors)", "bad_origin")
        if not path.startswith(GUARDED) or scope.get("method") == "OPTIONS":
            return
        who = (scope.get("client") or ("",))[0]
        if settings.keys:
            key = _key(headers)
            if key is None or not settings.knows(key):
                what = "no API key" if key is None else "an API key that is not known"
                raise ServeError(401, f"expected Authorization: Bearer KEY, got {what}", "invalid_api_key")
            who = key
        if self._inside > settings.limits.requests:  # of which each may hold an upload
            raise unavailable(f"{settings.limits.requests} requests are open already: ask again later", 1)
        wait = self._rates.ask(who)
        if wait:
            raise ServeError(
                429,
                f"more than {settings.limits.per_minute} requests a minute",
                "rate_limit_exceeded",
                retry_after=wait,
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > settings.limits.upload_bytes:
            raise too_large(settings.limits.upload_bytes)

    def _log(self, scope: Scope, status: int, began: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._service.metrics.requests.labels(route, str(status)).inc()
        LOG.info(
            "%s %s %d", scope.get("method", "WS"), scope["path"], status,
            extra={"fields": {"request_id": request_id, "seconds": round(time.perf_counter() - began, 4)}},
        )  # fmt: skip


class Body:
    """`receive` of a request whose body may be so long at most."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._count = receive, most, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._count += len(message.get("body", b""))
            if self._count > self._most:
                raise HTTPException(413, str(too_large(self._most)))  # which passes through whoever reads the body
        return message


class Rates:
    """A bucket of requests per client, that fills up within a minute."""

    def __init__(self, per_minute: int | None) -> None:
        self._most = per_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left at a time

    def ask(self, who: str) -> int:
        """Takes one; -> 0, or the seconds until there is one."""
        if self._most is None:
            return 0
        now = time.monotonic()
        left, at = self._left.pop(who, (float(self._most), now))
        left = min(self._most, left + (now - at) * self._most / 60)
        self._left[who] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return 0 if left >= 1 else int((1 - left) * 60 / self._most) + 1


def too_large(most: int) -> ServeError:
    return ServeError(413, f"expected at most {most} bytes", "request_too_large")


def _key(headers: Headers) -> str | None:
    kind, _, key = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and key:
        return key.strip()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(SUBPROTOCOL):
            return protocol.strip().removeprefix(SUBPROTOCOL)
    return headers.get("api-key") or None  # as some hosted services want it
