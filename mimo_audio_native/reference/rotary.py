"""Rotary positions (rotate-half), as the attention of every part of the model applies them."""

import torch
from torch import Tensor


def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """q [.., T, H, D] and k [.., T, K, D], rotated by the angles of cos and sin, or back; see `apply_rotary`."""
    sin = -sin if inverse else sin
    return apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [.., T, H, D], cos and sin [T, D / 2] or [.., T, D / 2] -> the shape and dtype of x; in float32 or wider."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    first, second = wide.chunk(2, -1)
    c, s = cos.unsqueeze(-2).to(wide.dtype), sin.unsqueeze(-2).to(wide.dtype)
    return torch.cat([first * c - second * s, second * c + first * s], -1).to(x.dtype)
