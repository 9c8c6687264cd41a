"""`mimo-audio serve`: a model as a service."""

import logging
from argparse import Namespace
from pathlib import Path

import torch

from mimo_audio.cli import logs
from mimo_audio.errors import MimoError
from mimo_audio.serve import server
from mimo_audio.serve.service import Service
from mimo_audio.serve.settings import KEYS_VARIABLE, Limits, Settings, is_loopback, read_keys
from mimo_audio.tasks import model, pairing

LOG = logging.getLogger(__name__)


def run(arguments: Namespace) -> int:
    """Serves until it is told to stop, and returns the exit status."""
    settings = _settings(arguments)
    folder = pairing.find_model(arguments.model)  # an error now, not when the server is up
    dtype = arguments.dtype and getattr(torch, arguments.dtype)

    def load() -> model.MimoAudio:
        loaded = model.load(
            arguments.model, arguments.tokenizer, arguments.device, dtype, arguments.slots, arguments.quantize
        )
        LOG.info("%s is loaded", name)
        return loaded

    name = arguments.name or ("nano" if arguments.model == "nano" else Path(folder).resolve().name)
    service = Service(load, name, settings.limits)
    if arguments.json_logs:
        logs.as_json()
    scheme = "http" if arguments.tls_cert is None else "https"
    LOG.info("%s at %s://%s:%d/ (Ctrl-C ends it)", name, scheme, settings.host, settings.port)
    server.run(service, settings, arguments.tls_cert, arguments.tls_key)
    return 0


def _settings(arguments: Namespace) -> Settings:
    """Raises MimoError."""
    keys = () if arguments.no_api_keys else read_keys(arguments.api_keys)
    if not (keys or arguments.no_api_keys or is_loopback(arguments.host)):
        raise MimoError(
            f"--host: anybody who reaches {arguments.host} could ask: give --api-keys FILE or {KEYS_VARIABLE}, or "
            "--no-api-keys"
        )
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise MimoError("--tls-cert and --tls-key: expected both or neither")
    for option, path in (("--tls-cert", arguments.tls_cert), ("--tls-key", arguments.tls_key)):
        if path is not None and not path.is_file():
            raise MimoError(f"{option}: no such file: {path}")
    for origin in arguments.cors:
        if origin != "*" and not origin.startswith(("http://", "https://")):
            raise MimoError(f"--cors: expected an origin as https://example.org, or *, got {origin!r}")
    if not 0 <= arguments.port < 65536:
        raise MimoError(f"--port: expected 0 to 65535, got {arguments.port}")
    limits = Limits(
        waiting=arguments.max_waiting,
        upload_bytes=arguments.max_upload_mb << 20,
        audio_seconds=arguments.max_audio_seconds,
        answer_seconds=arguments.max_answer_seconds,
        per_minute=arguments.max_per_minute,
        drain_seconds=arguments.drain_seconds,
    )
    for option in ("max_waiting", "max_audio_seconds", "max_answer_seconds"):
        if not getattr(arguments, option) >= 0:
            raise MimoError(f"--{option.replace('_', '-')}: expected a number from 0, got {getattr(arguments, option)}")
    return Settings(arguments.host, arguments.port, keys, tuple(arguments.cors), limits)
