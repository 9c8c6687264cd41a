"""Runs the application under uvicorn: TLS, signals, logs."""

from pathlib import Path
from typing import Any

import uvicorn

from mimo_audio.errors import MimoError
from mimo_audio.serve.app import create_app
from mimo_audio.serve.service import Service
from mimo_audio.serve.settings import Settings

HEADERS_SECONDS = 20  # a connection that is kept open without a request is closed
WEBSOCKET_BYTES = 16 << 20  # of one message


class Server(uvicorn.Server):
    """uvicorn, which on a signal lets answers end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM and Ctrl-C: nobody new is answered, and those who are may hear the end; again: now."""
        self._service.drain()
        super().handle_exit(sig, frame)


def run(service: Service, settings: Settings, tls_cert: Path | None = None, tls_key: Path | None = None) -> None:
    """Serves until a signal. Raises the error that kept the model from being loaded."""
    config = uvicorn.Config(
        create_app(service, settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=HEADERS_SECONDS,
        timeout_graceful_shutdown=int(settings.limits.drain_seconds),
        ws_max_size=WEBSOCKET_BYTES,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
    )
    server = Server(config, service)
    service.on_failure = lambda: setattr(server, "should_exit", True)
    try:
        server.run()
    except KeyboardInterrupt:  # the signal once more, when all is done
        if not server.started:
            raise
    except SystemExit as error:  # uvicorn has said why in the log
        raise MimoError(f"cannot listen at {settings.host}, port {settings.port}") from error
    if service.failure is not None:
        raise service.failure
