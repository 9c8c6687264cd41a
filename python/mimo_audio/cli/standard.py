"""Standard input and output in place of files: what `-` means to the commands that read or write one file.

Sound cannot be read or written without seeking: standard input is a temporary file before the work, and the result
becomes standard output after it, whole or not at all. (As it arrives: encode --stream and decode --stream.)
"""

import functools
import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from mimo_audio.cli.stream import write
from mimo_audio.errors import MimoError
from mimo_audio.files.output import OutputError

DASH = Path("-")
STDIN, STDOUT = "standard input", "standard output"  # the temporary files' names, for messages and tables
Run = Callable[[Namespace], int]


def streams(*sources: str, target: str | None = None) -> Callable[[Run], Run]:
    """Lets a command's arguments `sources` and `output` be `-`; `target` is the suffix of what it writes then."""

    def decorate(run: Run) -> Run:
        @functools.wraps(run)
        def with_files(arguments: Namespace) -> int:
            read = [name for name in sources if getattr(arguments, name) == DASH]
            writes = target is not None and arguments.output == DASH
            if len(read) > 1:
                raise MimoError(f"{' and '.join(read)}: expected standard input once")
            if not read and not writes:
                return run(arguments)
            with tempfile.TemporaryDirectory(prefix="mimo-audio-") as folder:
                source, result = Path(folder) / STDIN, Path(folder) / f"{STDOUT}{target}"
                if writes:
                    _check_output(arguments)
                    arguments.output = result
                for name in read:
                    with source.open("wb") as file:
                        shutil.copyfileobj(sys.stdin.buffer, file)
                    setattr(arguments, name, source)
                try:
                    status = run(arguments)
                except MimoError as error:  # which need not tell of the temporary folder
                    raise type(error)(str(error).replace(f"{folder}/", "")) from error
                if writes and result.exists():
                    with result.open("rb") as file:
                        write(lambda: iter(lambda: file.read(1 << 20), b""))
                return status

        return with_files

    return decorate


def name(path: str | Path) -> str:
    """The path as the user gave it."""
    return "-" if Path(path).name == STDIN or is_output(path) else str(path)


def is_output(path: str | Path) -> bool:
    """Whether this stands for standard output, where nothing else may be printed then."""
    return Path(path).stem == STDOUT


def _check_output(arguments: Namespace) -> None:
    """Raises OutputError unless standard output can take a file, and nothing else goes there."""
    if sys.stdout.isatty():
        raise OutputError("-: expected standard output to be a file or a pipe, got a terminal")
    if getattr(arguments, "json", None) is True:
        raise OutputError("--json: prints to standard output, which the output - takes")
    source = getattr(arguments, "input", None)
    if source is not None and os.path.isdir(source):
        raise OutputError(f"-: expected a folder, as {source} is one, got standard output")
