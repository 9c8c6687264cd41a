"""Definition of patch_decode: all steps of the patch decoder, as a loop over steps (MiMo-Audio report, section 2.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mimo_audio_native.reference.delayed_sampling import delayed_sampling
from mimo_audio_native.reference.quantized_linear import linear
from mimo_audio_native.reference.rotary import apply_rotary

LAYER_TENSORS = 12  # per layer: norm, q, q bias, k, k bias, v, v bias, out, norm, gate, up, down


def patch_decode(
    hidden: Tensor,
    layers: Sequence[Tensor],
    norm: Tensor,
    heads: Sequence[Tensor],
    embeddings: Sequence[Tensor],
    projection: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    attention_heads: int,
    eps: float,
    empty_ids: Sequence[int],
    delays: Sequence[int],
    group_size: int,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    seeds: Tensor,
    offsets: Tensor,
) -> Tensor:
    """hidden [B, D] -> tokens [B, G, C]; see ``mimo_audio_native``."""
    batch = len(hidden)
    blocks = [layers[i : i + LAYER_TENSORS] for i in range(0, len(layers), LAYER_TENSORS)]
    caches: list[list[tuple[Tensor, Tensor]]] = [[] for _ in blocks]
    tokens = torch.tensor(list(empty_ids), device=hidden.device).repeat(batch, group_size, 1)
    x = hidden
    for step in range(group_size + max(delays)):
        for block, cache in zip(blocks, caches, strict=True):
            norm_1, q_weight, q_bias, k_weight, k_bias, v_weight, v_bias, out, norm_2, gate, up, down = block
            y = F.rms_norm(x, norm_1.shape, norm_1, eps)
            width = len(q_weight) // attention_heads
            q, k, v = (
                linear(y, weight, bias).view(batch, -1, width)
                for weight, bias in ((q_weight, q_bias), (k_weight, k_bias), (v_weight, v_bias))
            )
            q, k = (apply_rotary(z, cos[step : step + 1], sin[step : step + 1]) for z in (q, k))
            cache.append((k, v))
            keys, values = (torch.stack(z, 2) for z in zip(*cache, strict=True))
            attended = F.scaled_dot_product_attention(q.unsqueeze(2), keys, values, enable_gqa=True)
            x = x + linear(attended.reshape(batch, -1), out)
            y = F.rms_norm(x, norm_2.shape, norm_2, eps)
            x = x + linear(F.silu(linear(y, gate)) * linear(y, up), down)
        y = F.rms_norm(x, norm.shape, norm, eps)
        x = delayed_sampling(
            y, heads, embeddings, empty_ids, delays, step, tokens, temperature, top_k, top_p, seeds, offsets
        )
        if projection is not None:
            x = F.linear(x, projection)
    return tokens
