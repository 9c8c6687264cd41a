"""The tasks of the base model: learning from examples in the prompt, and speech continuation (report, section 3.3).

An example is `input`, a line end, its output and a blank line; the prompt ends after the input to be answered. Inputs
are codes int [C, T] or text, so that speech and text meet in all four ways.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_audio.errors import PromptError
from mimo_audio.lm.samplers import GREEDY
from mimo_audio.prompts.builder import Prompt, PromptBuilder, checked_text
from mimo_audio.prompts.tasks import DIALOGUE, SPEECH


@dataclass(frozen=True, eq=False)
class Example:
    """An input, codes int [C, T] or text, and its output: text, and for speech the codes int [C, T] that speak it."""

    input: Tensor | str
    text: str
    audio: Tensor | None = None


def in_context_speech(
    build: PromptBuilder, instruction: str, examples: Sequence[Example], query: Tensor | str
) -> Prompt:
    """Examples with spoken outputs, and the input that the model is to answer with speech."""
    ids = _preface(build, instruction, examples)
    for index, example in enumerate(examples):
        name = f"examples[{index}]"
        ids += [_input(build, example.input, f"{name}: input"), build.template("\n")]
        ids += [build.stream(example.text, example.audio, name), build.template(" \n\n")]
    ids += [_input(build, query, "query"), build.template("\n"), build.template(SPEECH)]
    return Prompt(torch.cat(ids, 1), build.stop("eostm"), GREEDY)


def instructed_speech(build: PromptBuilder, instruction: str, query: Tensor | str) -> Prompt:
    """`in_context_speech` without examples: what the instruction alone does, to compare with."""
    ids = [build.text(f"[Int]:{checked_text(instruction, 'instruction')}\n"), _input(build, query, "query")]
    return Prompt(torch.cat([*ids, build.template("\n"), build.template(SPEECH)], 1), build.stop("eostm"), GREEDY)


def in_context_text(build: PromptBuilder, instruction: str, examples: Sequence[Example], query: Tensor | str) -> Prompt:
    """Examples with written outputs, and the input that the model is to answer with text; a blank line ends it."""
    ids = _preface(build, instruction, examples)
    for index, example in enumerate(examples):
        name = f"examples[{index}]"
        if example.audio is not None:
            raise PromptError(f"{name}: audio: expected none where answers are text, got {list(example.audio.shape)}")
        ids += [_input(build, example.input, f"{name}: input"), build.template("\n")]
        ids += [build.text(checked_text(example.text, f"{name}: text")), build.template("\n\n")]
    ids += [_input(build, query, "query"), build.template("\n")]
    blank = build.tokenizer.encode("\n\n")[0]
    return Prompt(torch.cat(ids, 1), tuple(sorted({*build.stop(), blank})), GREEDY)


def speech_continuation(build: PromptBuilder, audio: Tensor) -> Prompt:
    """Speech that goes on where a recording ends; the patches of the answer follow those of the prompt."""
    return Prompt(build.open_audio(audio, "audio"), build.stop("eosp"), DIALOGUE)


def _preface(build: PromptBuilder, instruction: str, examples: Sequence[Example]) -> list[Tensor]:
    if not examples:
        raise PromptError("examples: expected at least one, got none")
    return [build.text(f"[Int]:{checked_text(instruction, 'instruction')}\n")]


def _input(build: PromptBuilder, given: Tensor | str, name: str) -> Tensor:
    return build.text(checked_text(given, name)) if isinstance(given, str) else build.audio(given, name)
