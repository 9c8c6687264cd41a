"""Manifests: JSON lines, one sample each, that name recordings and what is known about them (docs/data.md)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mimo_audio.errors import AudioError

AUDIO = ("audio", "input", "voice")  # fields that name a recording, of a row and of a dialogue's turns
WORDS = ("task", "text", "speaker", "language", "caption", "question", "answer", "thought", "instruction", "style")

Row = dict[str, Any]


def read_manifest(path: Path) -> Iterator[Row]:
    """The rows of a manifest, their recordings as absolute paths. Raises AudioError that names the line."""
    folder = path.parent.resolve()
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = _row(f"{path}:{number}", line)
                    yield map_audio(row, lambda name: str(folder / name))
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"cannot read {path}: {error}") from error


def _row(where: str, line: str) -> Row:
    try:
        row = json.loads(line)
        line.encode()
    except (ValueError, RecursionError) as error:
        raise AudioError(f"{where}: expected a JSON object, got {line.strip()[:80]!r}") from error
    if not isinstance(row, dict):
        raise AudioError(f"{where}: expected a JSON object, got {line.strip()[:80]!r}")
    turns = row.get("turns", [])
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise AudioError(f"{where}: turns: expected a list of objects, got {turns!r:.80}")
    for part in (row, *turns):
        for name in (*AUDIO, *WORDS):
            if not isinstance(part.get(name, ""), str):
                raise AudioError(f"{where}: {name}: expected a string, got {part[name]!r:.80}")
            try:
                part.get(name, "").encode()  # JSON can spell half a surrogate pair
            except UnicodeEncodeError as error:
                raise AudioError(f"{where}: {name}: expected Unicode text, got half of a surrogate pair") from error
    if not any(name in row for name in ("audio", "text", "turns")):
        raise AudioError(f'{where}: expected "audio", "text" or "turns", got {", ".join(row) or "nothing"}')
    return row


def map_audio(row: Row, change: Callable[[Any], Any]) -> Row:
    """The row with `change` of each recording that it or one of its turns names."""
    changed = {name: change(value) if name in AUDIO else value for name, value in row.items()}
    if "turns" in row:
        changed["turns"] = [map_audio(turn, change) for turn in row["turns"]]
    return changed


def recordings(row: Row) -> list[Any]:
    """What the row and its turns name as recordings, in order."""
    found: list[Any] = []
    map_audio(row, found.append)
    return found
