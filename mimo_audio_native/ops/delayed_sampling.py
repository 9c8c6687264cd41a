"""One step of the patch decoder's output side (MiMo-Audio report, section 2.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_audio_native.ops.register import register_fake


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
    """Samples the codebooks that the delay pattern makes active at `step`, writes their tokens, sums their embeddings.

    Codebook r is active where delays[r] <= step < delays[r] + G; its token goes to frame step - delays[r]. Its empty id
    is removed before filtering, so something always remains. Frame i of codebook r draws with stream 1 + i * C + r
    (``sample`` says what a draw depends on).

    Args:
        hidden: [B, D] output of the patch decoder at this step, float32, bfloat16 or float16.
        heads: C tensors [V_r, D] in hidden's dtype, 1 to 32 codebooks.
        embeddings: C tensors [V_r, E] in hidden's dtype.
        empty_ids: C ids, each below V_r.
        delays: C steps, at least 0.
        step: from 0.
        tokens: [B, G, C] int64; the active places are written, the others left as they are.
        temperature, top_k, top_p, seeds, offsets: [B], as for ``sample``.

    Returns:
        [B, E] in hidden's dtype: the sum of the drawn tokens' embeddings in float32, the next step's input. Not
        differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or values; logits that cannot be sampled (NaN, no finite maximum):
            no token has been written then (on CUDA it is token 0, and ``raise_device_errors`` raises).

    Equivalent to a loop over codebooks of matrix product, ``sample`` and embedding (``reference.delayed_sampling``).
    """
    return torch.ops.mimo.delayed_sampling(
        hidden, heads, embeddings, empty_ids, delays, step, tokens, temperature, top_k, top_p, seeds, offsets
    )


@register_fake("mimo::delayed_sampling")
def _(hidden, heads, embeddings, empty_ids, delays, step, tokens, temperature, top_k, top_p, seeds, offsets) -> Tensor:
    return hidden.new_empty((hidden.shape[0], embeddings[0].shape[1]))
