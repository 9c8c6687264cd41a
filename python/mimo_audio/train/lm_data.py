"""Micro-batches of language-model training from token sets: tasks drawn by weight, samples packed into rows.

A micro-batch is a pure function of the seed, the step and its number: neither the processes nor the threads that read
ahead change it, and a resumed run replays nothing.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimo_audio.data.manifest import Row
from mimo_audio.data.token_set import TokenSet
from mimo_audio.errors import MimoError, PromptError
from mimo_audio.files.schema import Fraction, Size, Weight
from mimo_audio.lm import LanguageModelConfig
from mimo_audio.prompts import Example, PromptBuilder, Turn, samples
from mimo_audio.prompts.samples import Sample
from mimo_audio.text import TextTokenizer
from mimo_audio.train.batch import IGNORED, PADDING, Batch
from mimo_audio.train.recipe import TrainingError

DRAWS = 1000  # of samples, before it is clear that none is short enough
MISSES = 8  # samples in a row that fit nowhere, before a micro-batch counts as full
PIECES = 4  # utterances of an interleaved sample


@dataclass(frozen=True, kw_only=True)
class TaskWeights:
    """How often a set's rows serve as samples of a task, beside its other tasks and other sets' (docs/data.md)."""

    asr: Weight = 0
    tts: Weight = 0
    speech_continuation: Weight = 0
    interleaved: Weight = 0
    captioning: Weight = 0
    instruct_tts: Weight = 0
    audio_understanding: Weight = 0
    spoken_dialogue: Weight = 0
    speech_to_text_dialogue: Weight = 0
    text_dialogue: Weight = 0
    text: Weight = 0
    in_context_speech: Weight = 0


@dataclass(frozen=True, kw_only=True)
class SetOfTasks:
    """A token set (folder) and the weights of its tasks. seconds: recordings that are longer do not take part."""

    set: str
    tasks: TaskWeights
    seconds: Weight = 60


@dataclass(frozen=True, kw_only=True)
class Data:
    """sets: what is drawn from. voice_prompt: share of spoken answers with a recording of the speaker in the prompt,
    examples: at most so many pairs before the query of an in-context sample. held_out: rows that say "held_out" are
    never trained on; true takes them and no others, for validation.
    """

    sets: tuple[SetOfTasks, ...] = ()
    voice_prompt: Fraction = 0.5
    examples: Size = 4
    held_out: bool = False


def make_source(
    data: Data, config: LanguageModelConfig, text: TextTokenizer, rows: int, context: int, seed: int
) -> "PackedSamples":
    """The micro-batches of a stage. Raises CodesError, TrainingError."""
    build = PromptBuilder(text, config.group_size, config.speech_zeroemb_idx, config.speech_vocab_size)
    return PackedSamples(data, build, rows, context, seed)


class PackedSamples:
    """A Source (see `mimo_audio.train.batch`) of `rows` rows of `context` positions."""

    def __init__(self, data: Data, build: PromptBuilder, rows: int, context: int, seed: int) -> None:
        self.build, self.rows, self.context, self.seed = build, rows, context, seed
        self.choices: list[tuple[str, _SetSamples]] = []
        weights = []
        for part in data.sets:
            reader = _SetSamples(part, data, build)
            if self.choices:
                first = self.choices[0][1].tokens.description
                first.check(reader.tokens.description, part.set)
            for task, weight in asdict(part.tasks).items():
                if weight and not reader.rows_of[task]:
                    which = "held out" if data.held_out else "not held out"
                    raise TrainingError(f"{part.set}: expected rows for the task {task} that are {which}, got none")
                if weight:
                    self.choices.append((task, reader))
                    weights.append(weight)
        if not weights:
            raise TrainingError("data: expected a task with a weight above 0, got none")
        self.shares = np.array(weights) / sum(weights)

    def batch(self, step: int, micro_batch: int) -> Batch:
        """Draws samples until several in a row fit into no row any more; each goes where there is room first."""
        rng = np.random.default_rng([self.seed, step, micro_batch])
        packed: list[list[tuple[str, Sample]]] = [[] for _ in range(self.rows)]
        room, misses, draws = [self.context] * self.rows, 0, 0
        while misses < MISSES and max(room) > 0:
            task, reader = self.choices[rng.choice(len(self.shares), p=self.shares)]
            sample = reader.draw(task, rng)
            draws += 1
            place = next((i for i, left in enumerate(room) if len(sample.learned) <= left), None)
            if place is None:
                misses += len(sample.learned) <= self.context
                if draws >= DRAWS and max(room) == self.context:
                    raise TrainingError(
                        f"context: expected room for a sample, got {self.context} positions and none of {draws} fits"
                    )
                continue
            packed[place].append((task, sample))
            room[place] -= len(sample.learned)
        return self._batch(packed)

    def _batch(self, packed: list[list[tuple[str, Sample]]]) -> Batch:
        layout, size = self.build.layout, self.build.group_size
        width = self.context * size
        ids = torch.tensor([0, *layout.empty_ids])[None, :, None].repeat(self.rows, 1, width)
        labels = torch.full_like(ids, IGNORED)
        documents = torch.full((self.rows, self.context), PADDING)
        for row, placed in enumerate(packed):
            start = 0
            for number, (_, sample) in enumerate(placed):
                end = start + len(sample.learned)
                ids[row, :, start * size : end * size] = sample.ids
                labels[row, :, start * size : end * size] = sample.labels(size)
                documents[row, start:end] = number
                start = end
        return Batch(ids, labels, documents, [[task for task, _ in placed] for placed in packed])


class _SetSamples:
    """The rows of a set by task, and samples made of them."""

    def __init__(self, part: SetOfTasks, data: Data, build: PromptBuilder) -> None:
        self.tokens, self.data, self.build = TokenSet(Path(part.set)), data, build
        sizes = [
            size - 1 if empty == size - 1 else size
            for size, empty in zip(build.vocab_sizes, build.empty_ids, strict=True)
        ]
        theirs = list(self.tokens.description.codebook_sizes)
        if theirs[: len(sizes)] != sizes:
            raise TrainingError(f"{part.set}: expected codebooks of {sizes}, as the model has, got {theirs}")
        longest = part.seconds * self.tokens.description.frame_rate
        self.rows_of: dict[str, list[Row]] = {task: [] for task in asdict(part.tasks)}
        self.by_speaker: dict[str, list[Row]] = {}  # of rows that say what is spoken
        self.by_group: dict[str, list[Row]] = {}
        for row in self.tokens.rows:
            if bool(row.get("held_out")) != data.held_out:
                continue
            records = [row[name] for name in ("audio", "input", "voice") if name in row]
            records += [turn["audio"] for turn in row.get("turns", ()) if "audio" in turn]
            if any(self.tokens.frames(record) > longest for record in records):
                continue
            for task in tasks_of(row):
                self.rows_of[task].append(row)
            if "audio" in row and "text" in row:
                self.by_speaker.setdefault(row.get("speaker", ""), []).append(row)
            if row.get("task") == "conversion":
                self.by_group.setdefault(str(row.get("group", row.get("kind", ""))), []).append(row)
        self.makers: dict[str, Callable[[Row, np.random.Generator], Sample]] = {
            task: getattr(self, f"_{task}") for task in self.rows_of
        }

    def draw(self, task: str, rng: np.random.Generator) -> Sample:
        """A sample of a task. Raises MimoError that names the row."""
        rows = self.rows_of[task]
        row = rows[rng.integers(len(rows))]
        try:
            return self.makers[task](row, rng)
        except (MimoError, KeyError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else error
            raise TrainingError(f"{self.tokens.folder}: row {row.get('id')}: {task}: {what}") from error

    def codes(self, record: int) -> Tensor:
        return torch.from_numpy(self.tokens.codes(record))[: len(self.build.empty_ids)]

    def _voice(self, row: Row, rng: np.random.Generator) -> Tensor | None:
        """Another recording of the row's speaker, in a share of the samples; none if there is no other."""
        same = self.by_speaker[row["speaker"]] if "speaker" in row else []
        if rng.random() >= self.data.voice_prompt or len(same) < 2:
            return None
        other = same[rng.integers(len(same) - 1)]
        return self.codes((same[-1] if other is row else other)["audio"])

    def _asr(self, row: Row, rng: np.random.Generator) -> Sample:
        return samples.asr(self.build, self.codes(row["audio"]), row["text"], row.get("language", "en"))

    def _tts(self, row: Row, rng: np.random.Generator) -> Sample:
        return samples.tts(self.build, row["text"], self.codes(row["audio"]), self._voice(row, rng))

    def _speech_continuation(self, row: Row, rng: np.random.Generator) -> Sample:
        return samples.speech_continuation(self.build, self.codes(row["audio"]))

    def _interleaved(self, row: Row, rng: np.random.Generator) -> Sample:
        """Utterances of one speaker: text, speech to listen to and speech to learn, no two alike in turn."""
        same = self.by_speaker[row.get("speaker", "")]
        rows = [row] + [same[rng.integers(len(same))] for _ in range(PIECES - 1)]
        kinds = (rng.integers(3) + np.cumsum(rng.integers(1, 3, len(rows)))) % 3
        pieces: list[str | Tensor | tuple[str, Tensor]] = []
        for kind, each in zip(kinds, rows, strict=True):
            heard = self.codes(each["audio"]) if kind else None
            pieces.append(each["text"] if heard is None else heard if kind == 1 else (each["text"], heard))
        return samples.interleaved(self.build, pieces)

    def _captioning(self, row: Row, rng: np.random.Generator) -> Sample:
        return samples.captioning(self.build, self.codes(row["audio"]), row["caption"])

    def _instruct_tts(self, row: Row, rng: np.random.Generator) -> Sample:
        voice, thought = self._voice(row, rng), row.get("thought", "")
        return samples.instruct_tts(self.build, row["text"], row["style"], self.codes(row["audio"]), voice, thought)

    def _audio_understanding(self, row: Row, rng: np.random.Generator) -> Sample:
        audio = self.codes(row["audio"])
        return samples.audio_understanding(self.build, audio, row["question"], row["answer"], row.get("thought"))

    def _turns(self, row: Row, user: str) -> list[Turn]:
        """The turns, users' as audio or text, whichever of the two `user` names where there are both."""
        turns = []
        for turn in row["turns"]:
            written, record = turn.get("text"), turn.get("audio")
            if turn.get("role") == "user" and record is not None and written is not None:
                written, record = (None, record) if user == "audio" else (written, None)
            turns.append(Turn(str(turn.get("role")), written, None if record is None else self.codes(record)))
        return turns

    def _spoken_dialogue(self, row: Row, rng: np.random.Generator) -> Sample:
        voice = self.codes(row["voice"]) if "voice" in row else None
        return samples.spoken_dialogue(self.build, self._turns(row, "audio"), voice, row.get("system_prompt"))

    def _speech_to_text_dialogue(self, row: Row, rng: np.random.Generator) -> Sample:
        turns = [Turn(t.role, t.text, None if t.role == "assistant" else t.audio) for t in self._turns(row, "audio")]
        return samples.speech_to_text_dialogue(self.build, turns, row.get("thought"))

    def _text_dialogue(self, row: Row, rng: np.random.Generator) -> Sample:
        turns = [Turn(t.role, t.text) for t in self._turns(row, "text")]
        return samples.text_dialogue(self.build, turns, row.get("thought"))

    def _text(self, row: Row, rng: np.random.Generator) -> Sample:
        return samples.text(self.build, row["text"])

    def _in_context_speech(self, row: Row, rng: np.random.Generator) -> Sample:
        group = [r for r in self.by_group[str(row.get("group", row.get("kind", "")))] if r is not row]
        count = min(len(group), int(rng.integers(1, self.data.examples + 1)))
        if not count:
            raise PromptError('group: expected another pair of the same "group" for an example, got none')
        chosen = [group[i] for i in rng.choice(len(group), count, replace=False)]
        examples = [Example(self.codes(r["input"]), r["text"], self.codes(r["audio"])) for r in chosen]
        query, audio = self.codes(row["input"]), self.codes(row["audio"])
        return samples.in_context_speech(self.build, row["instruction"], examples, query, row["text"], audio)


def tasks_of(row: Row) -> tuple[str, ...]:
    """The tasks that a manifest's row can be a sample of."""
    kind = row.get("task", "speech" if "audio" in row else "text")
    if kind == "dialogue":
        turns: list[dict[str, Any]] = row.get("turns", [])
        users, assistants = ([t for t in turns if t.get("role") == role] for role in ("user", "assistant"))
        found = []
        if assistants and all("audio" in t and "text" in t for t in assistants):
            found.append("spoken_dialogue")
        if users and all("audio" in t for t in users):
            found.append("speech_to_text_dialogue")
        if all("text" in t for t in turns):
            found.append("text_dialogue")
        return tuple(found)
    return {
        "speech": ("asr", "tts", "speech_continuation", "interleaved") if "text" in row else ("speech_continuation",),
        "caption": ("captioning",),
        "instruct_tts": ("instruct_tts",),
        "understanding": ("audio_understanding",),
        "conversion": ("in_context_speech",),
        "text": ("text",),
    }.get(kind, ())
