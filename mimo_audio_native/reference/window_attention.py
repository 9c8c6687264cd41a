"""Definition of sliding-window attention over packed sequences in plain torch.

MiMo-Audio report, section 2.1: the vocoder attends to [40 left, 10 right] neighbours, the decoder is causal.
"""

from itertools import pairwise

import torch
from torch import Tensor

from mimo_audio_native.reference.rotary import apply_rotary


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None = None,
    left: int = -1,
    right: int = -1,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Row i attends to rows i - left .. i + right (inclusive) of its own sequence.

    q, k, v [T, H, D] packed; cu_seqlens [B + 1] int32 (None: one sequence); left, right >= 0, or -1 for no limit;
    cos, sin [P, D / 2] float32 rotary tables (P >= longest sequence; row p is position p within a sequence), None for
    no rotation; scale defaults to 1 / sqrt(D). -> [T, H, D] of q's dtype; soft-max in float32 or wider.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    bounds = [0, len(q)] if cu_seqlens is None else cu_seqlens.tolist()
    out = []
    for a, b in pairwise(bounds):
        q1, k1, v1 = q[a:b], k[a:b], v[a:b]
        if cos is not None and sin is not None:
            q1, k1 = (apply_rotary(t, cos[: b - a], sin[: b - a]) for t in (q1, k1))
        wide = torch.promote_types(q.dtype, torch.float32)
        scores = torch.einsum("ihd,jhd->hij", q1.to(wide), k1.to(wide)) * scale
        position = torch.arange(b - a, device=q.device)
        offset = position[None, :] - position[:, None]  # key minus query
        visible = torch.ones_like(offset, dtype=torch.bool)
        if left >= 0:
            visible &= offset >= -left
        if right >= 0:
            visible &= offset <= right
        weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
        out.append(torch.einsum("hij,jhd->ihd", weights, v1.to(wide)).to(q.dtype))
    return torch.cat(out) if out else torch.empty_like(q)
