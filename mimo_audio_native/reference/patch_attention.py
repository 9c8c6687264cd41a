"""Definition of patch_attention (MiMo-Audio report, section 2.2: the patch encoder)."""

import torch
from torch import Tensor

from mimo_audio_native.reference.rotary import apply_rotary


def patch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """q, k, v [P, G, H, D]: every frame attends to the frames of its own patch; see ``mimo_audio_native``."""
    frames, dim = q.shape[1], q.shape[3]
    if cos is not None and sin is not None:
        q, k = (apply_rotary(x, cos[:frames], sin[:frames]) for x in (q, k))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [P, H, G, D]
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(wide) @ k.to(wide).mT * (dim**-0.5 if scale is None else scale)
    if causal:
        hidden = torch.ones(frames, frames, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return (scores.softmax(-1) @ v.to(wide)).to(q.dtype).transpose(1, 2)
