"""The samples of the world: for each task an endless series, of which number n depends on the seed and n alone.

A sample is a line of a manifest in which clips stand where their files will, and functions where something is yet to be
measured. Training says only texts and voices that are not held out.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mimo_audio.data.clips import Clip
from mimo_audio.data.corpus import RATES
from mimo_audio.data.effects import NOISES
from mimo_audio.data.voices.cast import Cast, possible_rate
from mimo_audio.data.world import descriptions
from mimo_audio.data.world.questions import Question, question
from mimo_audio.data.world.texts import grammar_sentence, is_held_out_text

CONVERT = "Convert the speech as in the examples."
GROUP = 20  # pairs that share a conversion: 16 examples, and some to ask for
SENTENCES = 4  # of a document
EVERYDAY = 0.5  # of what is merely said
EXCHANGES = 0.25  # of what is asked
STYLES: dict[str, tuple[str, ...]] = {  # how a style may be asked for
    "slow": ("speaking slowly", "slowly and clearly", "at an easy pace"),
    "fast": ("speaking fast", "in a hurry", "quickly"),
    "whisper": ("whispering", "in a whisper", "very quietly, without voice"),
    "high": ("in a high voice", "with a small, high voice"),
    "deep": ("in a deep voice", "with a big, deep voice"),
    "hall": ("in a large hall", "with a long echo"),
    "radio": ("over a bad line", "with noise behind the voice"),
}
PLANS = {
    "slow": "I take my time over every word.",
    "fast": "I say it without a pause.",
    "whisper": "I let the air do the work, without my voice.",
    "high": "I raise my voice to a high tone.",
    "deep": "I let my voice sink.",
    "hall": "I let every word ring.",
    "radio": "I speak while it crackles.",
}
SHARES = {  # of the hours
    "speech": 0.47,
    "document": 0.08,
    "conversion": 0.15,
    "dialogue": 0.12,
    "instruct_tts": 0.07,
    "understanding": 0.06,
    "caption": 0.05,
}


@dataclass(frozen=True)
class Measured:
    """A value that is known when the clip is there: function of (its measures, its text)."""

    clip: Clip
    of: Callable[[descriptions.Measures, str], str]


@dataclass(frozen=True)
class World:
    """What samples are drawn from: everyday sentences and exchanges, a cast; whether they are the held-out texts."""

    name: str
    sentences: Sequence[str]
    exchanges: Sequence[tuple[str, str]]
    cast: Cast
    held_out: bool
    seed: int
    shuffled: tuple[str, ...] = field(init=False, repr=False)
    talks: tuple[Question, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ours = [text for text in self.sentences if is_held_out_text(text) == self.held_out]
        random.Random(f"world {self.seed} sentences").shuffle(ours)
        object.__setattr__(self, "shuffled", tuple(ours))
        talks = tuple(talk for asked, answer in self.exchanges if self._may_ask(talk := Question(asked, "", answer)))
        object.__setattr__(self, "talks", talks)

    def samples(self, task: str) -> Iterator[dict[str, Any]]:
        """The samples of a task: those of SHARES, and "text"."""
        number = 0
        while True:
            yield TASKS[task](self, random.Random(f"world {self.seed} {self.name} {task} {number}"), number)
            number += 1

    def sentence(self, rng: random.Random) -> str:
        """Something to say, everyday or of the grammars."""
        if self.shuffled and rng.random() < EVERYDAY:
            return rng.choice(self.shuffled)
        while is_held_out_text(text := grammar_sentence(rng)) != self.held_out:
            pass
        return text

    def question(self, rng: random.Random) -> Question:
        """Something to ask of the world, or now and then an everyday exchange, about which there is no thought."""
        if self.talks and rng.random() < EXCHANGES:
            return rng.choice(self.talks)
        while not self._may_ask(asked := question(rng)):
            pass
        return asked

    def _may_ask(self, asked: Question) -> bool:
        """Answers are texts of training also where questions are held out."""
        return is_held_out_text(asked.text) == self.held_out and not is_held_out_text(asked.answer)

    def clip(self, rng: random.Random, text: str, voice: str | None = None, rate: float | None = None) -> Clip:
        """The text in a voice and at a rate, which are drawn if not given."""
        voice = voice or self.cast.draw(rng)
        rate = rng.uniform(*RATES) if rate is None else rate
        return Clip(text, voice, round(possible_rate(voice, rate), 3), rng.getrandbits(31))


def _speech(world: World, rng: random.Random, number: int) -> dict[str, Any]:
    everyday = world.shuffled and number % 2
    text = world.shuffled[number // 2 % len(world.shuffled)] if everyday else world.sentence(rng)
    return _said(world.clip(rng, text), "speech")


def _said(clip: Clip, task: str) -> dict[str, Any]:
    return {"task": task, "audio": clip, "text": clip.text, "speaker": clip.voice, "language": "en", "rate": clip.rate}


def _document(world: World, rng: random.Random, number: int) -> dict[str, Any]:
    """One of the sentences that a speaker says one after the other."""
    document = number // SENTENCES
    shared = random.Random(f"world {world.seed} {world.name} document {document}")
    clip = world.clip(rng, world.sentence(rng), world.cast.draw(shared), shared.uniform(*RATES))
    return {**_said(clip, "speech"), "document": f"{world.name} {document}"}


def _conversion(world: World, rng: random.Random, number: int) -> dict[str, Any]:
    """A pair that shares its text; those of a group share the conversion, so that some are examples for others."""
    group = number // GROUP
    shared = random.Random(f"world {world.seed} {world.name} conversion group {group}")
    kind = ("voice", "rate", "style", "denoise", "pitch")[group % 5]
    voice = world.cast.draw(shared)
    other = world.cast.draw_other(shared, voice)
    kind = "rate" if kind == "voice" and other is None else kind
    faster, higher = shared.random() < 0.5, shared.random() < 0.5
    before = after = world.clip(rng, world.sentence(rng), voice, rng.uniform(0.95, 1.05))
    if kind == "voice" and other is not None:
        after = replace(before, voice=other, rate=possible_rate(other, before.rate))
    elif kind == "rate":
        after = replace(before, rate=round(possible_rate(voice, before.rate * (1.4 if faster else 0.7)), 3))
    elif kind == "style":
        after = replace(before, effects=(("whisper", 0.4),))
    elif kind == "pitch":
        after = _pitched(before, 1.25 if higher else 0.8)
    else:
        before = replace(before, effects=_noise(rng, 0, 15))
    return {
        "task": "conversion",
        "kind": kind,
        "group": f"{world.name} {kind} {group}",
        "instruction": CONVERT,
        "input": before,
        "audio": after,
        "text": after.text,
        "speaker": after.voice,
    }


def _pitched(clip: Clip, factor: float) -> Clip:
    """Higher by a factor, at the clip's own pace: said slower by the factor, then played faster by it."""
    return replace(clip, rate=round(possible_rate(clip.voice, clip.rate / factor), 3), effects=(("pitch", factor),))


def _noise(rng: random.Random, low: float, high: float) -> tuple[tuple[str, str | float], ...]:
    noise: tuple[str, str | float] = ("noise", f"{rng.choice(NOISES)}:{rng.uniform(low, high):.0f}")
    return (("room", round(rng.uniform(0.2, 0.7), 2)), noise) if rng.random() < 0.4 else (noise,)


def _any_condition(world: World, rng: random.Random) -> Clip:
    """A clip at any pace, as it is, or whispered, pitched or in noise."""
    clip = world.clip(rng, world.sentence(rng), rate=rng.uniform(0.7, 1.4))
    kind = rng.choice(("plain", "plain", "whisper", "pitch", "noise", "noise"))
    if kind == "whisper":
        return replace(clip, effects=(("whisper", 0.4),))
    if kind == "pitch":
        return _pitched(clip, rng.choice((0.8, 1.25)))
    return replace(clip, effects=_noise(rng, 0, 20)) if kind == "noise" else clip


def _caption(world: World, rng: random.Random, number: int) -> dict[str, Any]:
    clip, seed = _any_condition(world, rng), rng.getrandbits(31)
    said = Measured(clip, lambda found, text: descriptions.caption(found, text, random.Random(seed)))
    return {"task": "caption", "audio": clip, "caption": said, "speaker": clip.voice, "language": "en"}


def _understanding(world: World, rng: random.Random, number: int) -> dict[str, Any]:
    clip, seed = _any_condition(world, rng), rng.getrandbits(31)

    def part(index: int) -> Measured:
        return Measured(clip, lambda found, text: descriptions.question(found, random.Random(seed))[index])

    asked = {"question": part(0), "thought": part(1), "answer": part(2)}
    if number % 2:
        del asked["thought"]
    return {"task": "understanding", "audio": clip, **asked, "speaker": clip.voice, "language": "en"}


def _instruct_tts(world: World, rng: random.Random, number: int) -> dict[str, Any]:
    style = tuple(STYLES)[number % len(STYLES)]
    clip = world.clip(rng, world.sentence(rng), rate=rng.uniform(0.95, 1.05))
    if style in ("slow", "fast"):
        clip = replace(clip, rate=round(possible_rate(clip.voice, clip.rate * (0.7 if style == "slow" else 1.4)), 3))
    elif style in ("high", "deep"):
        clip = _pitched(clip, 1.25 if style == "high" else 0.8)
    else:
        kinds: dict[str, tuple[str, str | float]]
        kinds = {"whisper": ("whisper", 0.4), "hall": ("room", 0.9), "radio": ("noise", "crackle:8")}
        clip = replace(clip, effects=(kinds[style],))
    words = rng.choice(STYLES[style])
    thought = f"It should be said {words}. {PLANS[style]}"
    return {**_said(clip, "instruct_tts"), "style": words, "thought": thought}


def _dialogue(world: World, rng: random.Random, number: int) -> dict[str, Any]:
    """One to three questions, spoken; answered in the voice of `voice`, or (a third of them) in writing."""
    user, assistant = world.cast.draw(rng), world.cast.draw(rng)
    spoken = number % 3 != 0
    turns: list[dict[str, Any]] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        asked = world.question(rng)
        turns.append({"role": "user", "text": asked.text, "audio": world.clip(rng, asked.text, user)})
        turns.append({"role": "assistant", "text": asked.answer})
        if spoken:
            turns[-1]["audio"] = world.clip(rng, asked.answer, assistant)
    sample: dict[str, Any] = {"task": "dialogue", "turns": turns, "language": "en"}
    if spoken:
        return {**sample, "voice": world.clip(rng, world.sentence(rng), assistant), "speaker": assistant}
    return {**sample, "thought": asked.thought} if asked.thought and number % 2 else sample


def _text(world: World, rng: random.Random, number: int) -> dict[str, Any]:
    """Written questions and answers, every other with its thought, and plain sentences."""
    if number % 3 == 0:
        return {"task": "text", "text": world.sentence(rng), "language": "en"}
    asked = world.question(rng)
    turns = [{"role": "user", "text": asked.text}, {"role": "assistant", "text": asked.answer}]
    thought = {"thought": asked.thought} if asked.thought and number % 3 == 1 else {}
    return {"task": "dialogue", "turns": turns, **thought, "language": "en"}


TASKS: dict[str, Callable[[World, random.Random, int], dict[str, Any]]] = {
    "speech": _speech,
    "document": _document,
    "conversion": _conversion,
    "dialogue": _dialogue,
    "instruct_tts": _instruct_tts,
    "understanding": _understanding,
    "caption": _caption,
    "text": _text,
}


def clips_in(value: Any) -> Iterator[Clip]:
    """The clips of a sample, in order."""
    if isinstance(value, Clip):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from clips_in(item)


def expected_seconds(clip: Clip) -> float:
    """About how long a clip will be: enough to plan hours with, and known before anything is rendered."""
    return 0.4 + 0.33 * len(clip.text.split()) / clip.rate
