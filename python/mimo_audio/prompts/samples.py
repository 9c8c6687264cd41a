"""Training samples: a task's prompt as in inference, the answer that it should get, and which ids are to be learned.

Sections 3.2 and 4.1 of the MiMo-Audio report name the formats. Every sample that answers a prompt begins with that
prompt's ids; labels leave the prompt out. Speech that is to be learned is text-guided, text and patches in turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_audio.errors import PromptError
from mimo_audio.prompts import in_context, tasks
from mimo_audio.prompts.builder import Prompt, PromptBuilder, Turn, checked_text
from mimo_audio.prompts.in_context import Example
from mimo_audio.prompts.segments import FILL

DESCRIBE = "Please describe this audio"
END_OF_THOUGHT = "\n</think>\n"


@dataclass(frozen=True, eq=False)
class Sample:
    """ids int64 [1 + C, T * G]; learned bool [T]: the positions, text or patches, that the model is to predict."""

    ids: Tensor
    learned: Tensor

    def labels(self, group_size: int) -> Tensor:
        """The ids where they are learned, -100 elsewhere, also beside the text id of a group and text's codes."""
        learned = self.learned.repeat_interleave(group_size)
        return torch.where(learned, self.ids, FILL)


def text(build: PromptBuilder, written: str) -> Sample:
    """Text alone, all of it learned."""
    end = build.template("<|endoftext|>")
    return _all_but(build, 0, build.text(checked_text(written, "text")), end)


def asr(build: PromptBuilder, audio: Tensor, written: str, language: str = "en") -> Sample:
    """Speech to its transcript."""
    return _answered(build, tasks.asr(build, audio, language), _written(build, written, "text"))


def tts(build: PromptBuilder, spoken: str, audio: Tensor, voice: Tensor | None = None) -> Sample:
    """Text to its speech, in the voice of another recording if given."""
    prompt = tasks.tts(build, spoken, voice)
    return _answered(build, prompt, _speech(build, tasks.capitalised(spoken), audio, opened=True))


def instruct_tts(
    build: PromptBuilder, spoken: str, style: str, audio: Tensor, voice: Tensor | None = None, thought: str = ""
) -> Sample:
    """Text to speech in a style put in words, after a thought about it."""
    prompt = tasks.instruct_tts(build, spoken, style, voice)
    return _answered(build, prompt, _thought(build, thought), _speech(build, tasks.capitalised(spoken), audio))


def audio_understanding(
    build: PromptBuilder, audio: Tensor, question: str, answer: str, thought: str | None = None
) -> Sample:
    """A question about a recording; a thought, even an empty one, makes it a sample with thinking."""
    prompt = tasks.audio_understanding(build, audio, question, thinking=thought is not None)
    return _answered(build, prompt, _thought(build, thought), _written(build, answer, "answer"))


def captioning(build: PromptBuilder, audio: Tensor, caption: str) -> Sample:
    """A description of a recording."""
    return audio_understanding(build, audio, DESCRIBE, caption)


def spoken_dialogue(
    build: PromptBuilder, turns: Sequence[Turn], voice: Tensor | None = None, system_prompt: str | None = None
) -> Sample:
    """Speech to speech; the last turn is the assistant's, and the speech of all of its turns is learned."""
    *before, last = _dialogue(turns)
    prompt = tasks.spoken_dialogue(build, before, voice, system_prompt)
    sample = _answered(build, prompt, _speech(build, _text_of(last), last.audio, opened=True))
    return Sample(sample.ids, sample.learned | _streams(build, sample.ids))


def speech_to_text_dialogue(build: PromptBuilder, turns: Sequence[Turn], thought: str | None = None) -> Sample:
    """Speech to a written answer, the last turn, which is learned."""
    *before, last = _dialogue(turns)
    prompt = tasks.speech_to_text_dialogue(build, before, thinking=thought is not None)
    return _answered(build, prompt, _thought(build, thought), _written(build, _text_of(last), "turns[-1]: text"))


def text_dialogue(build: PromptBuilder, turns: Sequence[Turn], thought: str | None = None) -> Sample:
    """Text to text; the last turn is learned."""
    *before, last = _dialogue(turns)
    prompt = tasks.text_dialogue(build, before, thinking=thought is not None)
    return _answered(build, prompt, _thought(build, thought), _written(build, _text_of(last), "turns[-1]: text"))


def speech_continuation(build: PromptBuilder, audio: Tensor) -> Sample:
    """Speech alone; every patch is learned, and the end."""
    ids = build.audio(audio, "audio")
    return _all_but(build, 1, ids)


def interleaved(build: PromptBuilder, pieces: Sequence[str | Tensor | tuple[str, Tensor]]) -> Sample:
    """Pieces that follow one another as text, as speech to listen to, or as speech that is learned with its text."""
    ids, learned = [], []
    for index, piece in enumerate(pieces):
        name = f"pieces[{index}]"
        if isinstance(piece, str):
            ids.append(build.text(checked_text(piece, name)))
        elif isinstance(piece, Tensor):
            ids.append(build.audio(piece, name))
        else:
            ids.append(build.stream(piece[0], piece[1], name))
        learned.append(torch.full((_groups(build, ids[-1]),), not isinstance(piece, Tensor)))
    if not ids:
        raise PromptError("pieces: expected at least one, got none")
    return Sample(torch.cat(ids, 1), torch.cat(learned))


def in_context_speech(
    build: PromptBuilder,
    instruction: str,
    examples: Sequence[Example],
    query: Tensor | str,
    spoken: str,
    audio: Tensor,
) -> Sample:
    """Speech to speech by examples; the answer is learned, and so are the examples' outputs."""
    prompt = in_context.in_context_speech(build, instruction, examples, query)
    sample = _answered(build, prompt, _speech(build, spoken, audio, opened=True))
    return Sample(sample.ids, sample.learned | _streams(build, sample.ids))


def _answered(build: PromptBuilder, prompt: Prompt, *answer: Tensor) -> Sample:
    return _all_but(build, _groups(build, prompt.ids), prompt.ids, *answer)


def _all_but(build: PromptBuilder, first: int, *ids: Tensor) -> Sample:
    whole = torch.cat(ids, 1)
    return Sample(whole, torch.arange(_groups(build, whole)) >= first)


def _groups(build: PromptBuilder, ids: Tensor) -> int:
    return ids.shape[1] // build.group_size


def _written(build: PromptBuilder, written: str | None, name: str) -> Tensor:
    return torch.cat([build.text(checked_text(written, name)), build.template("<|im_end|>")], 1)


def _thought(build: PromptBuilder, thought: str | None) -> Tensor:
    """What follows <think> up to the answer; nothing where the prompt has not begun to think."""
    if thought is None:
        return build.template("")
    return (
        torch.cat([build.text(thought), build.template(END_OF_THOUGHT)], 1)
        if thought
        else build.template(END_OF_THOUGHT)
    )


def _speech(build: PromptBuilder, spoken: str | None, audio: Tensor | None, opened: bool = False) -> Tensor:
    """A stream; `opened`: the prompt has its <|sostm|>."""
    stream = build.stream(spoken, audio, "answer")
    return stream[:, build.group_size :] if opened else stream


def _streams(build: PromptBuilder, ids: Tensor) -> Tensor:
    """The positions inside of streams, their end included, their <|sostm|> not [T]."""
    row, special = ids[0, :: build.group_size], build.layout.special
    begun, ended = ((row == mark).long().cumsum(0) for mark in (special.sostm, special.eostm))
    return ((begun > ended) & (row != special.sostm)) | (row == special.eostm)


def _dialogue(turns: Sequence[Turn]) -> Sequence[Turn]:
    if not turns or turns[-1].role != "assistant":
        raise PromptError("turns: expected the assistant's turn at the end, which is what is learned")
    return turns


def _text_of(turn: Turn) -> str:
    return checked_text(turn.text, "turns[-1]: text")
