"""Definition of delayed_sampling: one step of the patch decoder's output side (MiMo-Audio report, section 2.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_audio_native.reference.sampling import sample


def delayed_sampling(
    hidden: Tensor,
    heads: Sequence[Tensor],
    embeddings: Sequence[Tensor],
    empty_ids: Sequence[int],
    delays: Sequence[int],
    step: int,
    tokens: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    seeds: Tensor,
    offsets: Tensor,
) -> Tensor:
    """hidden [B, D] of one step -> summed embeddings [B, E]; writes tokens [B, G, C]; see ``mimo_audio_native``."""
    group_size, channels = tokens.shape[1:]
    total = torch.zeros(len(hidden), embeddings[0].shape[1], dtype=torch.float32, device=hidden.device)
    for channel in range(channels):
        frame = step - delays[channel]
        if not 0 <= frame < group_size:
            continue
        logits = hidden.float() @ heads[channel].float().T
        logits[:, empty_ids[channel]] = float("-inf")
        drawn = sample(logits, temperature, top_k, top_p, seeds, offsets, 1 + frame * channels + channel)
        tokens[:, frame, channel] = drawn
        total += embeddings[channel][drawn].float()
    return total.to(hidden.dtype)
