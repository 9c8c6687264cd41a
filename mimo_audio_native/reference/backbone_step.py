"""Definition of backbone_step: one position per row through the backbone, against its cache (report, section 2.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mimo_audio_native.reference.patch_decode import LAYER_TENSORS
from mimo_audio_native.reference.quantized_linear import linear
from mimo_audio_native.reference.rotary import apply_rotary


def backbone_step(
    hidden: Tensor,
    layers: Sequence[Tensor],
    norm: Tensor,
    cache: Tensor,
    length: int,
    padding: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    attention_heads: int,
    eps: float,
    lengths: Tensor | None = None,
    pages: Tensor | None = None,
    ends: Tensor | None = None,
) -> Tensor:
    """hidden [B, D], cache [L, 2, B, N, P, W] -> hidden [B, D]; see ``mimo_audio_native``."""
    batch, device = len(hidden), hidden.device
    rows = torch.arange(batch, device=device)
    new = torch.full_like(rows, length) if lengths is None else lengths
    unseen = torch.zeros_like(rows) if padding is None else padding
    pages, size = (rows[:, None] if pages is None else pages.long()), cache.shape[4]
    page, within = pages[rows, new // size], new % size
    positions = torch.arange(length + 1, device=device)
    seen = (positions >= unseen[:, None]) & (positions <= (new if ends is None else ends)[:, None])
    cos, sin = cos[new - unseen], sin[new - unseen]
    x = hidden
    for index, room in enumerate(cache):
        block = layers[index * LAYER_TENSORS : (index + 1) * LAYER_TENSORS]
        norm_1, q_weight, q_bias, k_weight, k_bias, v_weight, v_bias, out, norm_2, gate, up, down = block
        y = F.rms_norm(x, norm_1.shape, norm_1, eps)
        q = linear(y, q_weight, q_bias).view(batch, attention_heads, -1)
        k, v = (
            linear(y, weight, bias).view(batch, -1, q.shape[2])
            for weight, bias in ((k_weight, k_bias), (v_weight, v_bias))
        )
        room[0, page, :, within] = apply_rotary(k, cos, sin)
        room[1, page, :, within] = v
        keys, values = room[:, pages].transpose(2, 3).flatten(3, 4)[:, :, :, : length + 1]
        q = apply_rotary(q, cos, sin).unsqueeze(2)
        attended = F.scaled_dot_product_attention(q, keys, values, seen[:, None, None], enable_gqa=True)
        x = x + linear(attended.reshape(batch, -1), out)
        y = F.rms_norm(x, norm_2.shape, norm_2, eps)
        x = x + linear(F.silu(linear(y, gate)) * linear(y, up), down)
    return F.rms_norm(x, norm.shape, norm, eps)
