"""Segments: text ids and codes as grids of ids [1 + C, T * G], the form in which the language model reads them.

group of text     group of audio          row 0: the text id of the group, or <|empty|> (0) for a patch
a -100 -100 -100  0 -100 -100 -100        rows 1..C: one codebook each, its empty id (e) beside text
e   e    e    e   c   c    c    c
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_audio.errors import PromptError
from mimo_audio.text import SpecialTokens

FILL = -100  # the text row beside the first column of a group
PIECE = 5  # text ids, and patches, that take turns in a stream (report, section 3.1)


@dataclass(frozen=True)
class Layout:
    """How ids are laid out: frames per patch, the id per codebook that stands for no code, the special text ids."""

    group_size: int
    empty_ids: tuple[int, ...]
    special: SpecialTokens

    @property
    def channels(self) -> int:
        """The number of codebooks C."""
        return len(self.empty_ids)


def text_segment(layout: Layout, ids: Sequence[int]) -> Tensor:
    """Groups of text ids: -> int64 [1 + C, len(ids) * G]."""
    columns = (
        torch.tensor([FILL, *layout.empty_ids], device="cpu").repeat(len(ids) * layout.group_size, 1).T.contiguous()
    )
    columns[0, :: layout.group_size] = torch.tensor(ids, dtype=torch.int64)
    return columns


def patches(layout: Layout, codes: Tensor) -> Tensor:
    """Groups of audio: codes int [C, T], T a multiple of G -> int64 [1 + C, T]. Raises PromptError."""
    frames = codes.shape[1]
    if frames % layout.group_size:
        raise PromptError(f"codes: expected a multiple of {layout.group_size} frames, got {frames}")
    text = torch.full((1, frames), FILL, device="cpu")
    text[0, :: layout.group_size] = layout.special.empty
    return torch.cat([text, codes.to(text)])


def audio_segment(layout: Layout, codes: Tensor) -> Tensor:
    """<|sosp|>, patches, <|eosp|>: codes int [C, T], T a multiple of G -> int64 [1 + C, T + 2 * G]."""
    opening, closing = (text_segment(layout, [mark]) for mark in (layout.special.sosp, layout.special.eosp))
    return torch.cat([opening, patches(layout, codes), closing], 1)


def stream_segment(
    layout: Layout, ids: Sequence[int], codes: Tensor, text_piece: int = PIECE, audio_piece: int = PIECE
) -> Tensor:
    """Interleaved text and audio: codes int [C, T], T a multiple of G -> int64 [1 + C, T + (len(ids) + 3) * G].

    <|sostm|>, then pieces of text and of patches in turn, the last of text with an <|eot|> added (so it may hold one id
    more), the rest of the longer side, <|eostm|> (report, section 3.1).
    """
    special = layout.special
    texts = [list(ids[start : start + text_piece]) for start in range(0, len(ids), text_piece)] or [[]]
    texts[-1].append(special.eot)
    sounds = list(patches(layout, codes).split(audio_piece * layout.group_size, 1)) if codes.shape[1] else []
    segments = [text_segment(layout, [special.sostm])]
    for turn in range(max(len(texts), len(sounds))):
        segments += [text_segment(layout, piece) for piece in texts[turn : turn + 1]] + sounds[turn : turn + 1]
    return torch.cat([*segments, text_segment(layout, [special.eostm])], 1)


def pad_codes(codes: Tensor, group_size: int) -> Tensor:
    """Whole patches: codes [C, T], T >= 1, whose last frame repeats up to a multiple of group_size."""
    return torch.cat([codes, codes[:, -1:].expand(-1, -codes.shape[1] % group_size)], 1)
