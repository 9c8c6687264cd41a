"""Requests by the file: a folder of inputs, or a .jsonl with a JSON object a line, that run as one batch."""

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any

from mimo_audio.cli import batch
from mimo_audio.cli.batch import Job
from mimo_audio.errors import MimoError
from mimo_audio.files.output import OutputError, check_output

if TYPE_CHECKING:
    from argparse import Namespace

    from typing_extensions import Self

LINES = ".jsonl"


def are_many(source: Path | None) -> bool:
    """Whether this is a folder or a file of requests."""
    return source is not None and (os.path.isdir(source) or source.suffix.lower() == LINES)


def plan(source: Path, target: Path, suffixes: set[str], target_suffix: str, key: str) -> list[Job]:
    """A job per file of a folder, as `batch.plan`, or per line of a .jsonl, whose `key` must be a string.

    A line's target is its "output" inside `target`, by default its number. A bad line is a job with its error. Raises
    MimoError if there is nothing to do.
    """
    if os.path.isdir(source):
        return batch.plan(source, target, suffixes, target_suffix)
    try:
        lines = source.read_text(encoding="utf-8").split("\n")  # splitlines would break a text at U+2028, too
    except (OSError, UnicodeDecodeError) as error:
        raise MimoError(f"cannot read {source}: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise MimoError(f"{source}: expected a JSON object a line, got none")
    width, taken, jobs = len(str(numbered[-1][0])), dict[Path, int](), []
    for number, line in numbered:
        path = target / f"{number:0{width}d}{target_suffix}"
        try:
            fields = _fields(line, key)
            path = target / _inside(fields.get("output", path.name))
            if path in taken:
                raise MimoError(f"output: expected another than that of line {taken[path]}, got {fields['output']!r}")
            taken[path] = number
            jobs.append(Job(source, path, number, fields))
        except MimoError as error:
            jobs.append(Job(source, path, number, error=error))
    return jobs


class Results(AbstractContextManager["Results"]):
    """A .jsonl file that grows by a line per result, so that an interrupted run can go on. Raises OutputError."""

    def __init__(self, path: Path, arguments: "Namespace") -> None:
        self.path, self._kept, self._there = path, 0, set[tuple[Any, Any]]()
        check_output(path, arguments.force or arguments.skip_existing)
        if arguments.skip_existing and path.exists():
            text = path.read_bytes()
            self._kept = text.rfind(b"\n") + 1  # what follows was interrupted
            for number, line in enumerate(text[: self._kept].split(b"\n")[:-1], 1):
                try:
                    record = json.loads(line)
                    self._there.add((record.get("line"), record["input"]))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    message = f"{path}, line {number}: expected a result to go on after, got {line[:80]!r}"
                    raise OutputError(message) from error
        self._file: IO[bytes] | None = None

    def has(self, line: int | None, source: str) -> bool:
        """Whether there is a result of this input already."""
        return (line, source) in self._there

    def __enter__(self) -> "Self":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._file.truncate(self._kept)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write, {error.strerror or error}") from error
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, record: dict[str, Any]) -> None:
        """One line more, whole."""
        assert self._file is not None
        try:
            self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write, {error.strerror or error}") from error


def _fields(line: str, key: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict) or not isinstance(fields[key], str):
            raise TypeError
        json.dumps(fields, ensure_ascii=False).encode()  # JSON can spell half a surrogate pair
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MimoError(f'expected a JSON object with "{key}", a string, got {line!r:.80}') from error
    return fields


def _inside(output: object) -> PurePath:
    """The name of a result. Raises MimoError unless it lies in the output folder."""
    if not isinstance(output, str) or not output.strip("./") or "\0" in output:
        raise MimoError(f"output: expected the name of a file, got {output!r}")
    path = PurePath(output)
    if path.is_absolute() or ".." in path.parts:
        raise MimoError(f"output: expected a name inside the output folder, got {output!r}")
    return path
