"""The command line, `mimo-audio ...`: runs one command; bad input is one line on stderr and exit status 2.

Only the command that runs imports torch, so that --help answers at once.
"""

import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword
from types import FrameType

from mimo_audio.cli import logs
from mimo_audio.cli.arguments import build_parser
from mimo_audio.errors import MimoError, first_line, one_line

LOG = logging.getLogger(__name__)
BAD_INPUT, INTERRUPTED = 2, 130
OUT_OF_MEMORY = ("can't allocate memory", "CUDA out of memory", "not enough memory")  # what torch says


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `mimo-audio` with these arguments (default: the process's) and returns its exit status."""
    _open_streams()
    arguments = build_parser().parse_args(argv)
    with logs.on_stderr(arguments.verbose, arguments.quiet):
        return _run(arguments)


def _run(arguments: Namespace) -> int:
    """Runs the command; what stops it is a line of the log, with -v after its traceback."""
    try:
        with _termination_as_interrupt():
            module = arguments.command + "_" * iskeyword(arguments.command)
            status = import_module(f"mimo_audio.cli.{module}").run(arguments)
            sys.stdout.flush()
            return status
    except MimoError as error:
        LOG.error(one_line(str(error)), exc_info=arguments.verbose)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        LOG.error("needs the package %s: pip install %s", error.name, error.name, exc_info=arguments.verbose)
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        LOG.error(one_line(f"out of memory ({first_line(error)})"), exc_info=arguments.verbose)
        return BAD_INPUT
    except KeyboardInterrupt:
        LOG.error("interrupted, nothing partial was left behind")
        return INTERRUPTED
    except OSError as error:
        if error.filename is not None:
            LOG.error(one_line(f"{error.filename}: {error.strerror or error}"), exc_info=arguments.verbose)
            return BAD_INPUT
        LOG.error("cannot use standard input or output, %s", error.strerror or error, exc_info=arguments.verbose)
        with open(os.devnull, "w") as nowhere:  # Python flushes once more when it ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return BAD_INPUT


def _open_streams() -> None:
    """Stands in for standard streams that the process was started without."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  (until the process ends)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Lets SIGTERM clean up as Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread: signals are the host program's affair
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
