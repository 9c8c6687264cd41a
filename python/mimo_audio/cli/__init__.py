"""The command line, `mimo-audio ...`: runs one command; bad input is one line on stderr and exit status 2.

Only the command that runs imports torch, so that --help answers at once.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword
from types import FrameType

from mimo_audio.cli.arguments import build_parser
from mimo_audio.errors import MimoError, first_line, one_line

BAD_INPUT, INTERRUPTED = 2, 130
OUT_OF_MEMORY = ("can't allocate memory", "CUDA out of memory", "not enough memory")  # what torch says


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `mimo-audio` with these arguments (default: the process's) and returns its exit status."""
    _open_streams()
    arguments = build_parser().parse_args(argv)
    try:
        with _termination_as_interrupt():
            module = arguments.command + "_" * iskeyword(arguments.command)
            status = import_module(f"mimo_audio.cli.{module}").run(arguments)
            sys.stdout.flush()
            return status
    except MimoError as error:
        print("mimo-audio:", one_line(str(error)), file=sys.stderr)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        print(f"mimo-audio: needs the package {error.name}: pip install {error.name}", file=sys.stderr)
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        print(one_line(f"mimo-audio: out of memory ({first_line(error)})"), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("mimo-audio: interrupted, nothing partial was left behind", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.filename is not None:
            print(one_line(f"mimo-audio: {error.filename}: {error.strerror or error}"), file=sys.stderr)
            return BAD_INPUT
        print("mimo-audio: cannot use standard input or output,", error.strerror or error, file=sys.stderr)
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
