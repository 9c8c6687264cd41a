"""Token grids: the ids that a language model reads and writes (MiMo-Audio report, section 2.2).

A grid [1 + C, T * G] has a row of text ids and a row per codebook. Each G columns are a group, one position of the
backbone: a text token (its id in the first column; the other columns and the audio rows mean nothing) or a patch (the
text id is <|empty|>, the audio rows are its codes).
"""

import torch
from torch import Tensor

from mimo_audio.errors import LanguageModelError
from mimo_audio.lm.config import LanguageModelConfig


def split(grid: Tensor, group_size: int) -> Tensor:
    """[.., 1 + C, T * G] -> groups [.., T, 1 + C, G]."""
    return grid.unflatten(-1, (-1, group_size)).transpose(-3, -2)


def text_group(token: int, config: LanguageModelConfig) -> Tensor:
    """The group [1 + C, G] int64 of a text token: its id in every column, all codes empty."""
    return torch.tensor([token, *config.speech_zeroemb_idx], device="cpu")[:, None].repeat(1, config.group_size)


def check(name: str, grid: Tensor, config: LanguageModelConfig, empty: int, batched: bool) -> None:
    """Raises LanguageModelError if a grid, of shape [B, 1 + C, T * G] if `batched`, is none for a model."""
    rows, size = 1 + config.audio_channels, config.group_size
    expected = f"[{'batch, ' * batched}{rows}, groups * {size}]"
    if not isinstance(grid, Tensor) or grid.is_floating_point() or grid.is_complex() or grid.dtype == torch.bool:
        kind = grid.dtype if isinstance(grid, Tensor) else type(grid).__name__
        raise LanguageModelError(f"{name}: expected an integer tensor {expected}, got {kind}")
    shape = list(grid.shape)
    if len(shape) != 2 + batched or shape[-2] != rows or shape[-1] % size or grid.numel() == 0:
        raise LanguageModelError(f"{name}: expected {expected} with at least one group, got shape {shape}")
    if shape[-1] // size > config.max_position_embeddings:
        raise LanguageModelError(
            f"{name}: expected at most the context of {config.max_position_embeddings} groups, got {shape[-1] // size}"
        )
    text = grid[..., 0, ::size]
    low, high = text.amin().item(), text.amax().item()
    if low < 0 or high >= config.vocab_size:
        raise LanguageModelError(
            f"{name}: expected text ids from 0 to {config.vocab_size - 1} where a group starts, "
            f"got {low if low < 0 else high}"
        )
    codes = split(grid, size)[text == empty][:, 1:]  # [P, C, G]
    if len(codes):
        limits = zip(codes.amin((0, 2)).tolist(), codes.amax((0, 2)).tolist(), config.speech_vocab_size, strict=True)
        for channel, (low, high, vocabulary) in enumerate(limits):
            if low < 0 or high >= vocabulary:
                raise LanguageModelError(
                    f"{name}: expected codes from 0 to {vocabulary - 1} in audio channel {channel}, "
                    f"got {low if low < 0 else high}"
                )
