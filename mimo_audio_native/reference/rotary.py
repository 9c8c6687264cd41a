"""Rotary positions (rotate-half), as the attention of every part of the model applies them."""

import torch
from torch import Tensor


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., T, H, D], cos and sin [T, D / 2] -> the same shape and dtype; computed in float32 or wider."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    first, second = wide.chunk(2, -1)
    c, s = cos[:, None].to(wide.dtype), sin[:, None].to(wide.dtype)
    return torch.cat([first * c - second * s, second * c + first * s], -1).to(x.dtype)
