"""Spoken abilities of a model, one sample at a time: what it answers, and what judges make of that.

Every answer is a flat record (mimo_audio.evaluate.abilities). An answer that does not end by itself within a generous
limit is a runaway, and is judged as far as it goes; one without speech, where speech was asked for, is judged as
silence: all its words are missing, its voice is nobody's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mimo_audio.errors import GenerationError
from mimo_audio.evaluate.abilities import Item
from mimo_audio.evaluate.answers import is_right
from mimo_audio.evaluate.distances import distance
from mimo_audio.evaluate.judges import Heard, Judges, similarity
from mimo_audio.evaluate.samples import Sample, SampleSet, Turn
from mimo_audio.evaluate.word_errors import count_errors
from mimo_audio.files import audio
from mimo_audio.prompts import Turn as Said
from mimo_audio.prompts import in_context, tasks
from mimo_audio.tasks.model import CONVERT, MimoAudio
from mimo_audio.tasks.options import Options
from mimo_audio.tasks.results import Answer, Speech

if TYPE_CHECKING:
    from typing_extensions import Unpack

OTHERS = 8  # voices that the voice of an answer is compared with, beside the one it was asked to have
PROMPT_SECONDS = 3.0  # of a recording that is to be continued; of a shorter one, half
LIMIT_CHARACTERS, LIMIT_TOKENS = 2, 16  # limits of texts: tokens per character of the right one, and more
LIMIT_THOUGHT = 256
LIMIT_LENGTH, LIMIT_SECONDS = 3, 2  # limits of speech: lengths of the original, and more
SECONDS_PER_WORD = 0.6  # where there is no original

Keep = Callable[[str, Tensor, int], str]  # (name, wave [N], sample rate) -> where it is kept


@dataclass
class Exam:
    """A model before its judges; `options` are those of every request, `shots` the numbers of examples."""

    model: MimoAudio
    judges: Judges
    shots: tuple[int, ...]
    options: Options
    keep: Keep

    def take(self, ability: str, sample: Sample, samples: SampleSet) -> Iterator[tuple[str, Item]]:
        """The records of a sample with the rows that they belong to. Raises MimoError if it cannot be used."""
        take: Callable[[Sample, SampleSet], Iterator[tuple[str, Item]]] = getattr(self, f"_{ability}")
        return take(sample, samples)

    def _transcription(self, sample: Sample, samples: SampleSet) -> Iterator[tuple[str, Item]]:
        path, text = sample.files["audio"], sample.values["text"]
        heard = self.judges.hear_file(path)
        language = "zh" if sample.values.get("language") == "zh" else "en"
        prompt = tasks.asr(self.model.prompts, self.model.encode(path), language)
        answer, item = self._write(sample, text, partial(self.model.answer, prompt))
        errors = count_errors(text, answer)
        item |= {"text": text, "answer": answer, "seconds": heard.seconds}
        item |= {"words": errors.words, "wrong_words": errors.wrong_words}
        item |= {"characters": errors.characters, "wrong_characters": errors.wrong_characters}
        yield "", item | self._transcribed(text, heard)

    def _speaking(self, sample: Sample, samples: SampleSet) -> Iterator[tuple[str, Item]]:
        text, original = sample.values["text"], self.judges.hear_file(sample.files["audio"])
        voice = samples.prompt(sample)
        wave, item = self._say(sample, original.seconds, text, partial(self.model.speak, text, voice), "speech")
        made = self.judges.hear(*wave)
        item |= {"text": text, "voice": voice and voice.name, **self._compared(text, made, original)}
        if voice:
            item |= self._in_voice(made, original, voice, samples.others(sample, OTHERS))
        yield "" if voice else "no voice given", item

    def _continuation(self, sample: Sample, samples: SampleSet) -> Iterator[tuple[str, Item]]:
        path, rate = sample.files["audio"], self.model.sample_rate
        whole = audio.read(path, rate)
        length = round(min(PROMPT_SECONDS, len(whole) / rate / 2) * rate)
        start, rest = whole[:length], whole[length:]
        seconds = len(rest) / rate
        wave, item = self._say(sample, seconds, "", partial(self.model.extend, start, seconds), "rest")
        item["ended"] = True  # the limit is the task, and may be reached
        made, original = self.judges.hear(*wave), self.judges.hear(rest.numpy(), rate)
        item |= self._compared(None, made, original)
        yield "", item | self._in_voice(made, original, path, samples.others(sample, OTHERS))

    def _conversion(self, sample: Sample, samples: SampleSet) -> Iterator[tuple[str, Item]]:
        kind, text = sample.values.get("kind", "voice"), sample.values["text"]
        source, target = (self.judges.hear_file(sample.files[key]) for key in ("input", "audio"))
        instruction, query = sample.values.get("instruction", CONVERT), self.model.encode(sample.files["input"])
        examples = samples.examples(sample)
        for shots in self.shots:
            if shots > len(examples):
                continue
            pairs = [(one.files["input"], one.files["audio"], one.values["text"]) for one in examples[:shots]]
            turned = [(after, before, said) for before, after, said in pairs]
            for which, shown in (("right", pairs), ("wrong", turned)) if shots else (("right", pairs),):
                wave, item = self._say(
                    sample, target.seconds, text, self._converted(shown, query, instruction), f"{shots}-{which}"
                )
                made = self.judges.hear(*wave)
                item |= {"kind": kind, "shots": shots, "examples": which, "text": text}
                item |= self._compared(text, made, target)
                item |= {"distance": distance(kind, made, target), "distance unchanged": distance(kind, source, target)}
                yield f"{kind} {shots} {which}", item

    def _converted(self, pairs: list[tuple[Path, Path, str]], query: Tensor, instruction: str) -> Callable[..., Speech]:
        if pairs:
            return partial(self.model.convert, pairs, query, instruction)
        return partial(self.model.say, in_context.instructed_speech(self.model.prompts, instruction, query))

    def _spoken_turn(self, turns: list[Any], voice: Path | None, **options: "Unpack[Options]") -> Speech:
        speech = self.model.chat(turns, voice, speech=True, **options).speech
        assert speech is not None, "asked for speech"
        return speech

    def _answering(self, sample: Sample, samples: SampleSet) -> Iterator[tuple[str, Item]]:
        if sample.task == "understanding":
            asked, path, reference = sample.values["question"], sample.files["audio"], sample.values["answer"]
            for thinking in (False, True):
                answer, item = self._write(
                    sample,
                    reference,
                    partial(self.model.understand, path, asked, thinking),
                    LIMIT_THOUGHT * thinking,
                )
                item |= {"question": asked, **_judged(reference, answer)}
                yield "about sound" + ", thinking" * thinking, item
            return
        for index, turn in enumerate(sample.turns):
            if turn.role == "assistant" and index:
                yield from self._dialogue(sample, sample.turns[:index], turn)

    def _dialogue(self, sample: Sample, before: tuple[Turn, ...], right: Turn) -> Iterator[tuple[str, Item]]:
        """Asked in writing and, where it is recorded, by voice; answered in writing, with a thought, and by voice."""
        written = [Said(turn.role, turn.text) for turn in before]
        spoken: list[Any] = [turn.audio if turn.role == "user" else Said("assistant", turn.text) for turn in before]
        asked = {
            "written": written if all(turn.text for turn in before) else [],
            "spoken": spoken if all(spoken) else [],
        }
        reference = right.text or ""
        for how, turns in asked.items():
            if not turns:
                continue
            for thinking in (False, True):
                answer, item = self._write(
                    sample,
                    reference,
                    partial(self.model.chat, turns, thinking=thinking),
                    LIMIT_THOUGHT * thinking,
                )
                item |= {"question": before[-1].text, **_judged(reference, answer)}
                yield f"{how} question, written answer" + ", thinking" * thinking, item
        if right.audio is None or not all(turn.audio for turn in before):
            return
        voice = sample.files.get("voice")
        turns = [
            turn.audio if turn.role == "user" else Said("assistant", turn.text, self.model.encode(turn.audio))
            for turn in before
            if turn.audio is not None
        ]
        original = self.judges.hear_file(right.audio)
        wave, item = self._say(
            sample,
            original.seconds,
            reference,
            partial(self._spoken_turn, turns, voice),
            f"answer{len(before)}",
        )
        made = self.judges.hear(*wave)
        for name, said in made.transcripts.items():
            item |= {"question": before[-1].text, f"transcript {name}": said}
            yield f"spoken question, spoken answer by {name}", item | _judged(reference, said)

    def _write(self, sample: Sample, reference: str, ask: Callable[..., Answer], more: int = 0) -> tuple[str, Item]:
        """The text of an answer and the beginning of its record."""
        limit = LIMIT_CHARACTERS * len(reference) + LIMIT_TOKENS + more
        item: Item = {"sample": sample.name, "ended": True, "failed": None}
        try:
            answer = ask(**{**self.options, "max_new": limit})
        except GenerationError as error:
            return "", item | {"failed": str(error)}
        return answer.text, item | {"ended": answer.stats.ended}

    def _say(
        self, sample: Sample, seconds: float, text: str, ask: Callable[..., Speech], name: str
    ) -> tuple[tuple[Any, int], Item]:
        """The wave (array [N], rate) of an answer and the beginning of its record; an empty wave if it has none."""
        most = LIMIT_LENGTH * seconds + LIMIT_SECONDS
        patches = most * self.model.audio_tokenizer.config.frame_rate / self.model.prompts.group_size
        limit = round(patches) + LIMIT_CHARACTERS * len(text) + LIMIT_TOKENS
        item: Item = {"sample": sample.name, "ended": True, "failed": None, "output": None}
        try:
            speech = ask(**{**self.options, "max_seconds": most, "max_new": limit})
        except GenerationError as error:
            return (torch.zeros(0).numpy(), self.model.sample_rate), item | {"failed": str(error)}
        item |= {"ended": speech.stats.ended, "said": speech.text}
        item["output"] = self.keep(name, speech.wave, speech.sample_rate)
        return (speech.wave.numpy(), speech.sample_rate), item

    def _transcribed(self, text: str, heard: Heard, prefix: str = "") -> Item:
        """Each recogniser's transcript and its wrong words."""
        found: Item = {}
        for name, said in heard.transcripts.items():
            found[f"{prefix}transcript {name}"] = said
            found[f"{prefix}wrong_words {name}"] = count_errors(text, said).wrong_words
        return found

    def _compared(self, text: str | None, made: Heard, original: Heard) -> Item:
        """What the judges say of an answer and of its original."""
        found: Item = {"seconds": made.seconds, "original seconds": original.seconds}
        found["length ratio"] = made.seconds / original.seconds
        if text is not None:
            found |= {"words": count_errors(text, "").words, **self._transcribed(text, made)}
            found |= self._transcribed(text, original, "original ")
        return found | {"quality": made.quality, "original quality": original.quality}

    def _in_voice(self, made: Heard, original: Heard, voice: Path, others: list[Path]) -> Item:
        """Similarity to the voice asked for, to others, and in how many pairs the first is more; the original's."""
        if self.judges.speaker is None:
            return {}
        wanted = self.judges.hear_file(voice)
        own, foreign = similarity(made, wanted), [similarity(made, self.judges.hear_file(one)) for one in others]
        found: Item = {"similarity": own, "original similarity": similarity(original, wanted)}
        if foreign:
            found["other similarity"] = sum(foreign) / len(foreign)
            found |= {"pairs": len(foreign), "nearer pairs": sum(own > one for one in foreign)}
        return found


def _judged(reference: str, answer: str) -> Item:
    return {"reference": reference, "answer": answer, "right": is_right(reference, answer)}
