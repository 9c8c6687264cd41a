"""Corpora of rendered speech: texts in voices, as files with a manifest that grows and goes on after interruptions."""

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mimo_audio.data.clips import Clip, Rendered, render_all
from mimo_audio.data.voices import is_held_out
from mimo_audio.data.voices.cast import Cast, possible_rate
from mimo_audio.errors import AudioError
from mimo_audio.files.output import OutputError

RATES = (0.85, 1.2)


@dataclass(frozen=True)
class Summary:
    """What a corpus has: clips and hours, and what could not be said, a line each."""

    clips: int
    hours: float
    problems: tuple[str, ...]


def plan_speech(
    texts: Iterable[str], cast: Cast, seed: int = 0, rates: tuple[float, float] = RATES, voices_per_text: int = 1
) -> Iterator[Clip]:
    """Clips of each text in voices and at rates drawn for it, which its number and the seed decide."""
    for number, text in enumerate(texts):
        for take in range(voices_per_text):
            rng = random.Random(f"speak {seed} {number} {take}")
            voice = cast.draw(rng)
            yield Clip(text, voice, round(possible_rate(voice, rng.uniform(*rates)), 3), rng.getrandbits(31))


def row(rendered: Rendered) -> dict[str, object]:
    """A line of the manifest, but for what a task adds to it."""
    clip = rendered.clip
    return {
        "audio": clip.audio,
        "text": clip.text,
        "speaker": clip.voice,
        "language": "zh" if clip.voice.startswith("kokoro/z") else "en",
        "seconds": round(rendered.seconds, 3),
        "rate": clip.rate,
        "held_out": is_held_out(clip.voice),
    }


def render_corpus(
    clips: Iterable[Clip],
    folder: Path,
    workers: int,
    hours: float = float("inf"),
    on_clip: Callable[[Rendered], object] = lambda rendered: None,
) -> Summary:
    """Renders clips below a folder, each with its line in manifest.jsonl, until there are so many hours.

    A folder that holds a beginning of the same corpus is continued, and becomes what it would have become at once.
    on_clip is called after each. Raises OutputError for a folder of another corpus, AudioError if nothing is said.
    """
    manifest = folder / "manifest.jsonl"
    known = read_rows(manifest)
    clips = list(clips)
    if foreign := known.keys() - {clip.audio for clip in clips}:
        raise OutputError(
            f"--out {folder}: holds another corpus ({len(foreign)} of its {len(known)} clips are none of this one's)"
        )
    seconds, count, problems = 0.0, 0, []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(manifest, "a", encoding="utf-8") as lines:
            for rendered in render_all(clips, folder, workers):
                if rendered.problem:
                    problems.append(rendered.problem)
                else:
                    line = row(rendered)
                    if known.pop(rendered.clip.audio, None) is None:
                        lines.write(json.dumps(line) + "\n")
                        lines.flush()
                    seconds, count = seconds + rendered.seconds, count + 1
                on_clip(rendered)
                if seconds >= 3600 * hours:
                    break
    except OSError as error:
        raise OutputError(f"{error.filename or manifest}: cannot write, {error.strerror or error}") from error
    if problems and not count:
        raise AudioError(f"nothing could be said: {problems[0]}")
    return Summary(count, seconds / 3600, tuple(problems))


def read_rows(manifest: Path) -> dict[str, dict[str, object]]:
    """The lines of a manifest by their audio; half a line at its end, of a process that was killed, is cut off."""
    try:
        if not manifest.exists():
            return {}
        content = manifest.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(manifest, len(whole))
        return {found["audio"]: found for found in map(json.loads, whole.decode().splitlines())}
    except OSError as error:
        raise OutputError(f"{manifest}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{manifest}: expected a manifest that this command wrote, found {error!r:.80}") from None


def read_texts(paths: Sequence[Path]) -> list[str]:
    """The texts of files: a line each, or the "text" of each line of a .jsonl manifest; empty lines are passed over.

    Raises AudioError.
    """
    return list(chain.from_iterable(map(_read_texts, paths)))


def _read_texts(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"cannot read {path}: {error}") from error
    if path.suffix == ".jsonl":
        try:
            lines = [json.loads(line)["text"] for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise AudioError(f'{path}: expected JSON objects with "text", found {error!r:.80}') from None
        if not all(isinstance(line, str) and line.strip() for line in lines):
            raise AudioError(f'{path}: expected a "text" with words in every line')
    if not lines:
        raise AudioError(f"{path}: no texts")
    return lines
