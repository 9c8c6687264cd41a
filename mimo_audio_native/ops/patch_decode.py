"""All steps of the patch decoder in one call (MiMo-Audio report, section 2.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_audio_native.ops.register import register_fake


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
    """Decodes a patch per row: G + max(delays) steps of Qwen2 blocks, each followed by ``delayed_sampling``.

    Step 0 reads `hidden`, every later step the summed embeddings of the tokens that the step before it drew, projected
    where E differs from D. Positions count from 0.

    Args:
        hidden: [B, D] of the backbone, in the patch decoder's width; float32, bfloat16 or float16.
        layers: 12 tensors per block, in hidden's dtype as all weights: norm [D], q [Q, D], q bias [Q], k [K, D],
            k bias [K], v [K, D], v bias [K], out [D, Q], second norm [D], gate [F, D], up [F, D], down [D, F]. Heads
            have an even width W up to 256: Q = attention_heads * W, K = W times a divisor of attention_heads. The
            matrices may all be of ``quantize_weight``, in one format.
        norm: [D] of the final RMS norm.
        heads: C tensors [V_r, D], 1 to 32 codebooks.
        embeddings: C tensors [V_r, E].
        projection: [D, E], or None where E = D.
        cos, sin: [P, W / 2] float32 rotary tables, P at least the number of steps.
        attention_heads: query heads of every block.
        eps: of the RMS norms.
        empty_ids: C ids that are never drawn, each below V_r.
        delays: C steps, at least 0; the steps are at most 1024.
        group_size: G, frames of a patch.
        temperature, top_k, top_p, seeds, offsets: [B], as for ``sample``; offsets count patches of a request.

    Returns:
        [B, G, C] int64 tokens. A row's tokens depend neither on the other rows nor on threads. Activations are float32
        for every dtype; the heads' input and the summed embeddings are rounded to hidden's dtype, as the definition
        does. Not differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or values; logits that cannot be sampled (NaN, no finite maximum; on
            CUDA that gives token 0, and ``raise_device_errors`` raises).

    Equivalent to a loop over steps of plain torch (``reference.patch_decode``).
    """
    return torch.ops.mimo.patch_decode(
        hidden,
        layers,
        norm,
        heads,
        embeddings,
        projection,
        cos,
        sin,
        attention_heads,
        eps,
        empty_ids,
        delays,
        group_size,
        temperature,
        top_k,
        top_p,
        seeds,
        offsets,
    )


@register_fake("mimo::patch_decode")
def _(
    hidden,
    layers,
    norm,
    heads,
    embeddings,
    projection,
    cos,
    sin,
    attention_heads,
    eps,
    empty_ids,
    delays,
    group_size,
    temperature,
    top_k,
    top_p,
    seeds,
    offsets,
) -> Tensor:
    return hidden.new_empty((hidden.shape[0], group_size, len(heads)), dtype=torch.int64)
