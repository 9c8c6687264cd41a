"""What a command says besides its result: the package's log on standard error, as much of it as -v and --quiet leave.

Imports nothing heavy.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOG = logging.getLogger("mimo_audio")


@contextmanager
def on_stderr(verbose: bool, quiet: bool) -> Iterator[None]:
    """Meanwhile, lines of the log go to standard error: notes and progress, with `verbose` also how, or errors only."""
    handler, level = _Handler(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
    try:
        yield
    finally:
        LOG.setLevel(level)
        LOG.removeHandler(handler)


def as_json() -> None:
    """From now on, lines of the log are JSON objects: what a service's log collector reads."""
    for handler in LOG.handlers:
        if isinstance(handler, _Handler):
            handler.setFormatter(_Json())


class _Json(logging.Formatter):
    """time, level, logger, message, the traceback if there is one, and the record's own `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Handler(logging.Handler):
    """Lines on standard error as it is at that time, above the progress bar if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)  # with the traceback, if the record has one
        if isinstance(self.formatter, _Json):
            return line
        if record.levelno >= logging.WARNING:
            return f"mimo-audio: {line}"
        return line if record.levelno >= logging.INFO else f"{record.name}: {line}"

    def emit(self, record: logging.LogRecord) -> None:
        write = sys.modules["tqdm"].tqdm.write if "tqdm" in sys.modules else print
        with suppress(OSError, ValueError):  # standard error is closed or full, and nobody can be told
            write(self.format(record), file=sys.stderr)
