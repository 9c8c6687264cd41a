"""Builds a world: renders the clips of its samples and writes a manifest per task and split.

OUT/audio/..                          clips, named by what describes them
OUT/train/TASK.jsonl                  training: texts and voices that are not held out
OUT/held_out/TASK.jsonl               held-out texts in the voices of training
OUT/held_out_voices/TASK.jsonl        held-out texts in held-out voices
OUT/world.json                        what it was made from
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import soundfile

from mimo_audio.data.clips import Clip, Rendered, render_all
from mimo_audio.data.voices import VoiceError, installed, is_held_out
from mimo_audio.data.voices.cast import Cast
from mimo_audio.data.world.descriptions import measure
from mimo_audio.data.world.plan import SHARES, Measured, World, clips_in, expected_seconds
from mimo_audio.data.world.texts import everyday, is_held_out_text
from mimo_audio.errors import AudioError
from mimo_audio.files.output import OutputError, atomic_output

VOICES = {"hibari": 6, "kokoro": 2, "espeak": 1, "flite": 1}  # shares; of those that are installed
MIXTURES = 0.3
TEXTS_PER_HOUR = 300  # written samples, which cost nothing
SPLITS = ("train", "held_out", "held_out_voices")


@dataclass(frozen=True)
class Settings:
    """What a world is made from: hours of training speech, samples per task of each held-out split, voices, seed."""

    hours: float = 8.0
    held_out: int = 100
    voices: tuple[str, ...] = ()  # as Cast.of takes them; none: VOICES
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """Hours and samples by split and task, and what could not be said."""

    rows: dict[str, dict[str, int]]
    hours: dict[str, float]
    problems: tuple[str, ...]


def build(
    settings: Settings,
    folder: Path,
    workers: int,
    speech: Sequence[Path] = (),
    on_clip: Callable[[Rendered, int], object] = lambda rendered, total: None,
) -> Report:
    """Makes the world, or goes on with it; `speech` are manifests of more speech that is rendered already.

    The same settings give the same files, whatever interrupts the work. More hours or held-out samples later keep what
    is there. on_clip is called after each clip with the number of all. Raises VoiceError, AudioError, OutputError.
    """
    requests = settings.voices or default_voices()
    sentences, exchanges = everyday()
    _claim(folder, {**asdict(settings), "voices": requests, "sentences": len(sentences)})
    training = Cast.of(requests, MIXTURES)
    held_out = held_out_cast(requests)
    worlds = [World("train", sentences, exchanges, training, False, settings.seed)]
    worlds.append(World("held_out", sentences, exchanges, training, True, settings.seed))
    if held_out:
        worlds.append(World("held_out_voices", sentences, exchanges, held_out, True, settings.seed))
    samples = {
        (world.name, task): list(_planned(world, task, settings)) for world in worlds for task in (*SHARES, "text")
    }
    more = {(split, "speech"): list(rows) for split, rows in read_speech(speech, folder).items()}

    clips = list(dict.fromkeys(clip for rows in samples.values() for row in rows for clip in clips_in(row)))
    there, problems = {}, []
    for rendered in render_all(clips, folder, workers):
        if rendered.problem:
            problems.append(rendered.problem)
        else:
            there[rendered.clip] = rendered.seconds
        on_clip(rendered, len(clips))
    if clips and not there:
        raise AudioError(f"nothing could be said: {problems[0]}")

    counts: dict[str, dict[str, int]] = {}
    hours: dict[str, float] = {}
    for (split, task), rows in samples.items():
        written = [_written(row, folder, there) for row in rows if all(clip in there for clip in clips_in(row))]
        written += more.get((split, task), [])
        _write(folder / split / f"{task}.jsonl", written)
        counts.setdefault(split, {})[task] = len(written)
        seconds = sum(there.get(clip, 0) for row in rows for clip in clips_in(row))
        seconds += sum(row.get("seconds", 0) for row in more.get((split, task), []))
        hours[split] = hours.get(split, 0) + seconds / 3600
    return Report(counts, hours, tuple(problems))


def default_voices() -> tuple[str, ...]:
    """The engines of VOICES that are installed. Raises VoiceError if none is."""
    found, missing = installed()
    if not found.keys() & VOICES.keys():
        raise VoiceError(f"no voices are installed: {'; '.join(missing.values())}")
    return tuple(f"{name}={share}" for name, share in VOICES.items() if name in found)


def held_out_cast(requests: Iterable[str]) -> Cast | None:
    """The held-out voices of the engines that are asked for, in equal shares; None if they have none."""
    casts = []
    for name in dict.fromkeys(request.partition("/")[0].partition("=")[0] for request in requests):
        try:
            casts.append(Cast.of([name], held_out=True))
        except VoiceError:
            continue
    groups = tuple(cast.groups[0] for cast in casts)
    return Cast(groups, (1.0,) * len(groups)) if groups else None


def read_speech(manifests: Sequence[Path], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of manifests (audio, text, speaker, seconds, held_out: whether the voice is) by the split they are for.

    A held-out text in a training voice belongs to held_out; a training text in a held-out voice to none. Paths become
    relative to the split's folder. Raises AudioError.
    """
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for manifest in manifests:
        try:
            content = manifest.read_bytes()
            lines = content[: content.rfind(b"\n") + 1].decode().splitlines()  # it may be growing
            for row in map(json.loads, lines):
                voice = bool(row.get("held_out")) or is_held_out(row["speaker"])
                text = is_held_out_text(row["text"])
                if voice and not text:
                    continue
                split = "held_out_voices" if voice else "held_out" if text else "train"
                audio = os.path.relpath(manifest.parent / row["audio"], folder / split)
                rows[split].append({"task": "speech", "language": "en", **row, "audio": audio})
        except OSError as error:
            raise AudioError(f"cannot read {manifest}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wanted = "JSON objects with audio, text and speaker"
            raise AudioError(f"{manifest}: expected {wanted}, found {error!r:.80}") from None
    return rows


def _planned(world: World, task: str, settings: Settings) -> Iterator[dict[str, Any]]:
    samples = world.samples(task)
    if world.name != "train":
        yield from islice(samples, settings.held_out)
    elif task == "text":
        yield from islice(samples, round(settings.hours * TEXTS_PER_HOUR))
    else:
        seconds = 0.0
        while seconds < settings.hours * 3600 * SHARES[task]:
            sample = next(samples)
            seconds += sum(map(expected_seconds, clips_in(sample)))
            yield sample


def _written(row: dict[str, Any], folder: Path, there: dict[Clip, float]) -> dict[str, Any]:
    """The line of a manifest: files where clips were, values where they were to be measured, seconds of all clips."""

    def resolve(value: Any) -> Any:
        if isinstance(value, Clip):
            return f"../{value.audio}"
        if isinstance(value, Measured):
            wave, rate = soundfile.read(folder / value.clip.audio, dtype="float32")
            return value.of(measure(wave, rate, value.clip.text), value.clip.text)
        if isinstance(value, dict):
            return {key: resolve(item) for key, item in value.items()}
        return [resolve(item) for item in value] if isinstance(value, list) else value

    seconds = round(sum(there[clip] for clip in clips_in(row)), 3)
    return {**resolve(row), "seconds": seconds} if seconds else resolve(row)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_output(path, force=True) as partial:
        partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _claim(folder: Path, made_from: dict[str, Any]) -> None:
    """Writes world.json. Raises OutputError if the folder holds a world that this one would not be a larger one of."""
    path = folder / "world.json"
    made_from = json.loads(json.dumps(made_from))
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [key for key in ("seed", "voices", "sentences") if before[key] != made_from[key]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path}: expected what this command wrote, found {error!r:.80}") from None
        if changed:
            said = ", ".join(f"{key} {before[key]!r:.60}" for key in changed)
            raise OutputError(f"--out {folder}: holds another world, of {said}")
    with atomic_output(path, force=True) as partial:
        partial.write_text(json.dumps(made_from, indent=2) + "\n", encoding="utf-8")
