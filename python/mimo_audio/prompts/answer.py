"""What generated ids say: a thought, text, and the codes of speech."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_audio.errors import PromptError
from mimo_audio.prompts.builder import PromptBuilder
from mimo_audio.text import TextTokenizer


@dataclass(frozen=True, eq=False)
class Answer:
    """Text without special tokens and thought, the thought if there was one, and codes int64 [C, T] of the speech."""

    text: str
    thought: str | None
    codes: Tensor


def read_answer(build: PromptBuilder, ids: Tensor, thinking: bool = False) -> Answer:
    """Takes generated ids int [1 + C, T * G] apart; `thinking`: the prompt had left a <think> open.

    Speech runs from the first <|sostm|>, or the start, to the first <|eostm|>, or the end; frames whose first codebook
    is empty are no speech, which leaves the patches. Raises PromptError if the ids are not of this layout.
    """
    layout = build.layout
    if ids.ndim != 2 or len(ids) != 1 + layout.channels or ids.shape[1] % layout.group_size:
        raise PromptError(f"ids: expected [{1 + layout.channels}, T * {layout.group_size}], got {list(ids.shape)}")
    row = ids[0, :: layout.group_size].tolist()
    end = row.index(layout.special.eostm) if layout.special.eostm in row else len(row)
    start = row.index(layout.special.sostm) if layout.special.sostm in row[:end] else 0
    frames = ids[1:, start * layout.group_size : end * layout.group_size]
    thought, text = _thought_and_text(build.tokenizer, row, layout.special.sostm, thinking)
    return Answer(text, thought, frames[:, frames[0] != layout.empty_ids[0]].to(torch.int64))


def _thought_and_text(tokenizer: TextTokenizer, row: list[int], sostm: int, thinking: bool) -> tuple[str | None, str]:
    """The thought ends at </think>, or where speech begins, or never."""
    text = tokenizer.decode(row, skip_special=True)
    if not thinking and not text.lstrip().startswith("<think>"):
        return None, text.strip()
    thought, closed, rest = text.partition("</think>")
    if not closed and sostm in row:
        speech = row.index(sostm)
        thought, rest = (tokenizer.decode(part, skip_special=True) for part in (row[:speech], row[speech:]))
    return thought.lstrip().removeprefix("<think>").strip(), rest.strip()
