"""What spoken abilities are measured on: lines of manifests, and which ability each can test.

A line is a JSON object; audio files are relative to its manifest. Its "task", if it has one, or else its fields say
what it is for:

speech         "audio", "text", perhaps "speaker" and "language": transcription, speaking, continuation; without "text"
               only the last
conversion     "input", "audio" (what it becomes), "text", "group" (whose pairs are examples for each other), perhaps
               "kind" (voice, rate, pitch, style, denoise) and "instruction"
dialogue       "turns", each with "role" (user, assistant), "text" and perhaps "audio" (a user's may have only that),
               and perhaps "voice": answering
understanding  "audio", "question", "answer": answering

They are the manifests of training (docs/data.md); lines of its other tasks are passed over.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimo_audio.errors import AudioError
from mimo_audio.files.schema import shown

ABILITIES = ("transcription", "speaking", "conversion", "continuation", "answering")
ABILITIES_OF = {
    "speech": ("transcription", "speaking", "continuation"),
    "conversion": ("conversion",),
    "dialogue": ("answering",),
    "understanding": ("answering",),
}
TASKS_AS = {  # names of manifests' tasks that are others here
    "asr": "speech",
    "tts": "speech",
    "text_dialogue": "dialogue",
}
STRINGS = ("text", "speaker", "language", "group", "kind", "instruction", "question", "answer")
FILES = ("audio", "input", "voice")


@dataclass(frozen=True)
class Turn:
    """What user or assistant said."""

    role: str
    text: str | None
    audio: Path | None


@dataclass(frozen=True)
class Sample:
    """A line of a manifest; `name` is where it stands, `task` what it is for (None: nothing here)."""

    name: str
    task: str | None
    files: dict[str, Path]
    values: dict[str, str]
    turns: tuple[Turn, ...] = ()
    held_out: bool = False

    @property
    def abilities(self) -> tuple[str, ...]:
        """What it can test."""
        if self.task == "speech" and "text" not in self.values:
            return ("continuation",)
        return ABILITIES_OF.get(self.task or "", ())


@dataclass(frozen=True)
class SampleSet:
    """The samples of a manifest, and who speaks in which."""

    name: str
    samples: tuple[Sample, ...]
    by_speaker: dict[str, list[Sample]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found: dict[str, list[Sample]] = {}
        for sample in self.of("speaking"):
            found.setdefault(sample.values.get("speaker", ""), []).append(sample)
        found.pop("", None)
        object.__setattr__(self, "by_speaker", found)

    def of(self, ability: str) -> list[Sample]:
        """Those that can test an ability; for "conversion" those of groups with examples for them."""
        found = [sample for sample in self.samples if ability in sample.abilities]
        return [sample for sample in found if self.examples(sample)] if ability == "conversion" else found

    def prompt(self, sample: Sample) -> Path | None:
        """Another recording of the sample's speaker, the next that says something else; None if there is none."""
        own = self.by_speaker.get(sample.values.get("speaker", ""), [])
        text = sample.values["text"]
        return next((other.files["audio"] for other in _after(own, sample) if other.values["text"] != text), None)

    def others(self, sample: Sample, count: int) -> list[Path]:
        """A recording of each of so many other speakers, the next ones in order."""
        speakers = list(self.by_speaker)
        own = sample.values.get("speaker")
        start = speakers.index(own) + 1 if own in speakers else 0
        ordered = [name for name in (*speakers[start:], *speakers[:start]) if name != own]
        return [self.by_speaker[name][0].files["audio"] for name in ordered[:count]]

    def examples(self, sample: Sample) -> list[Sample]:
        """The other pairs of a conversion's group, those after it first."""
        group = [other for other in self.samples if other.task == "conversion" and _group(other) == _group(sample)]
        return _after(group, sample)


def read_set(name: str, manifest: Path, held_out: bool = False) -> SampleSet:
    """The samples of a manifest, or only those marked as held out. Raises AudioError that names the line."""
    return SampleSet(name, tuple(sample for sample in _read(manifest) if sample.held_out or not held_out))


def _group(sample: Sample) -> str | None:
    return sample.values.get("group")


def _after(samples: Sequence[Sample], sample: Sample) -> list[Sample]:
    """All but the sample, those that follow it first."""
    where = samples.index(sample) if sample in samples else 0
    return [other for other in (*samples[where:], *samples[:where]) if other is not sample]


def _read(manifest: Path) -> Iterator[Sample]:
    try:
        lines = manifest.read_text(encoding="utf-8").split("\n")  # splitlines would break a text at U+2028, too
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"cannot read {manifest}: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _sample(json.loads(line), f"{manifest.name}:{number}", manifest.parent)
        except json.JSONDecodeError as error:
            raise AudioError(f"{manifest}:{number}: expected a JSON object, got {line[:80]!r} ({error.msg})") from error
        except (ValueError, RecursionError) as error:
            raise AudioError(f"{manifest}:{number}: {error}") from error


def _sample(values: Any, name: str, folder: Path) -> Sample:
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, got {shown(values)}")
    strings = {key: _string(values, key) for key in (*STRINGS, *FILES) if values.get(key) is not None}
    turns = values.get("turns") or []
    if not isinstance(turns, list):
        raise ValueError(f"turns: expected a list, got {shown(turns)}")
    task = values.get("task")
    task = TASKS_AS.get(task, task) if isinstance(task, str) else _task(values)
    sample = Sample(
        name,
        task,
        {key: folder / strings[key] for key in FILES if key in strings},
        {key: strings[key] for key in STRINGS if key in strings},
        tuple(_turn(turn, f"turns[{index}]", folder) for index, turn in enumerate(turns)),
        values.get("held_out") is True,
    )
    needs = {
        "speech": ("audio",),
        "conversion": ("input", "audio", "text", "group"),
        "understanding": ("audio", "question", "answer"),
    }.get(sample.task or "", ())
    missing = [key for key in needs if key not in strings]
    if missing:
        raise ValueError(f"{sample.task}: expected {', '.join(needs)}, got no {', '.join(missing)}")
    if sample.task == "dialogue" and not any(turn.role == "assistant" for turn in sample.turns):
        raise ValueError("dialogue: expected turns with an assistant's answer, got none")
    return sample


def _task(values: dict[str, Any]) -> str | None:
    if values.get("turns"):
        return "dialogue"
    if values.get("audio") is None:
        return None
    if values.get("question") is not None:
        return "understanding"
    return "speech" if values.get("input") is None else "conversion"


def _string(values: dict[str, Any], key: str, prefix: str = "") -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{prefix}{key}: expected a string, got {shown(value)}")
    value.encode()  # JSON can spell half a surrogate pair
    return value


def _turn(values: Any, name: str, folder: Path) -> Turn:
    if not isinstance(values, dict) or values.get("role") not in ("user", "assistant"):
        raise ValueError(f'{name}: expected an object with the "role" user or assistant, got {shown(values)}')
    text, audio = (
        _string(values, key, f"{name}.") if values.get(key) is not None else None for key in ("text", "audio")
    )
    if text is None and (audio is None or values["role"] == "assistant"):
        raise ValueError(f"{name}: expected a text{' or audio' * (values['role'] == 'user')}, got {shown(values)}")
    return Turn(values["role"], text, folder / audio if audio else None)
