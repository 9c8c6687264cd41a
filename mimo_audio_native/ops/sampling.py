"""Sampling of tokens from logits (MiMo-Audio report, section 2.2)."""

import torch
from torch import Tensor

from mimo_audio_native.ops.register import register_fake


def sample(
    logits: Tensor,
    temperature: Tensor | float = 0.0,
    top_k: Tensor | int = 0,
    top_p: Tensor | float = 1.0,
    seeds: Tensor | int = 0,
    offsets: Tensor | int = 0,
    stream: int = 0,
) -> Tensor:
    """One token per row from softmax(logits / temperature) after top-k, then top-p.

    A draw depends on the row's logits and settings, its seed, its offset and the stream alone (Philox4x32-10): a
    request gives the same tokens in any batch and with any number of threads. A plain number counts for every row.

    Args:
        logits: [B, V], float32, bfloat16 or float16; -inf removes an entry.
        temperature: [B] float32, at least 0; 0 takes the largest logit, the first of equal ones.
        top_k: [B] int32; 0 or less keeps all; ties with the k-th largest stay.
        top_p: [B] float32; the smallest set of largest entries whose probability reaches it, at least one; of ties at
            its edge the last stay; outside (0, 1) it keeps all.
        seeds: [B] int64 of the requests.
        offsets: [B] int64, positions within the requests.
        stream: which draw at this position, 0 .. 2^32 - 1.

    Returns:
        [B] int64; scores and weights in float32. Not differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or values; a row with NaN or whose largest score is not finite (on
            CUDA it gives token 0, and ``raise_device_errors`` raises).

    Equivalent to ``filter_scores(row, ...).softmax(0)`` and its inverse cumulative sum (``reference.sample``).
    """
    settings = (
        value if isinstance(value, Tensor) else torch.full(logits.shape[:1], value, dtype=dtype, device=logits.device)
        for value, dtype in (
            (temperature, torch.float32),
            (top_k, torch.int32),
            (top_p, torch.float32),
            (seeds, torch.int64),
            (offsets, torch.int64),
        )
    )
    return torch.ops.mimo.sample(logits, *settings, stream)


@register_fake("mimo::sample")
def _(logits, temperature, top_k, top_p, seeds, offsets, stream=0) -> Tensor:
    return logits.new_empty(logits.shape[0], dtype=torch.int64)
