"""Collections of recordings: a folder tree, or a manifest that also says what is spoken."""

import json
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path

from mimo_audio.errors import AudioError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class Recording:
    """An audio file and what is said in it, if that is known; held_out: not for training, as its manifest says."""

    path: Path
    text: str | None = None
    held_out: bool = False


def list_recordings(source: Path, held_out: bool = False) -> list[Recording]:
    """Recordings of a folder tree or manifest (JSONL, "audio" relative to its folder, and "text"), in a fixed order.

    held_out: only those that the manifest marks by "held_out": true. Of a tree, what is hidden or in a hidden folder is
    passed over (macOS puts ._x.wav beside x.wav). Raises AudioError if there are none.
    """
    if source.is_dir():
        found = [Recording(path) for path in visible_files(source) if path.suffix.lower() in SUFFIXES]
    else:
        found = _read_manifest(source)
    if not found:
        raise AudioError(f"{source}: no audio files")
    found = [recording for recording in found if recording.held_out or not held_out]
    if not found:
        raise AudioError(f'{source}: expected recordings marked as "held_out", got none')
    return found


def visible_files(folder: Path) -> list[Path]:
    """The files of a folder tree, those aside that are hidden or in a hidden folder, in a fixed order."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and isfile(path)
    ]


def _read_manifest(manifest: Path) -> list[Recording]:
    try:
        lines = manifest.read_text(encoding="utf-8").split("\n")  # splitlines would break a text at U+2028, too
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"cannot read {manifest}: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            path, text = values["audio"], values.get("text")
            if not isinstance(path, str) or not isinstance(text, str | None):
                raise TypeError
            f"{path}{text}".encode()  # JSON can spell half a surrogate pair
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            expected = 'a JSON object with "audio" and perhaps "text", both strings'
            raise AudioError(f"{manifest}:{number}: expected {expected}, got {line[:80]!r}") from error
        found.append(Recording(manifest.parent / path, text, values.get("held_out") is True))
    return found
