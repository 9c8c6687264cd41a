"""One position per row through the backbone, against its cache, in one call (MiMo-Audio report, section 2.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_audio_native.ops.register import register_fake


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
    """One new position per row through Qwen2 blocks; its keys and values go into the cache.

    Args:
        hidden: [B, D], the position's embeddings; float32, bfloat16 or float16.
        layers: 12 tensors per block, in hidden's dtype as all weights: those of ``patch_decode``, quantised or not.
            Heads have an even width W up to 256: Q = attention_heads * W, K = N * W, where N key-value heads divide
            attention_heads.
        norm: [D] of the final RMS norm.
        cache: [L, 2, B, N, P, W] in hidden's dtype, contiguous: keys, rotated, and values of every layer at positions
            0 .. length - 1 of P; written at `length`.
        length: positions so far, less than P; with `lengths`, the most that a row may have.
        padding: [B] int64, 0 to the row's length: so many of a row's first positions are none of its own; the row
            neither sees nor counts them (its new position is its length - padding). None: no row has any.
        cos, sin: [> length, W / 2] float32 rotary tables.
        attention_heads: query heads of every block.
        eps: of the RMS norms.
        lengths: [B] int64, 0 to `length`: positions so far of every row, read on the device: a captured CUDA graph can
            be replayed at any. None: `length` of every row.
        pages: [B, M] int32, which makes cache [L, 2, pages, N, size, W] a pool of pages for any rows: position p of row
            b lies in page pages[b, p // size] at p % size, and P is M * size. Entries for positions that a row does not
            see are not looked at. None: row b has page b. Rows may share pages, also as positions of one sequence that
            follow each other: all rows' keys and values are in the cache before any row attends.
        ends: [B] int64, the row's length to `length`: the last position that a row sees, with those that rows which
            share its pages write in this call. None: its new one.

    Returns:
        [B, D] in hidden's dtype, after the final norm. A row's result depends neither on the other rows nor on its
        padding nor on threads. Activations are float32 for every dtype; keys, values and the result are rounded to
        hidden's. Not differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or values (of padding and lengths on CUDA, where looking
            would synchronise, by ``raise_device_errors``; for pages the kernel traps).

    Equivalent to a loop over layers of plain torch (``reference.backbone_step``).
    """
    return torch.ops.mimo.backbone_step(
        hidden, layers, norm, cache, length, padding, cos, sin, attention_heads, eps, lengths, pages, ends
    )


@register_fake("mimo::backbone_step")
def _(
    hidden, layers, norm, cache, length, padding, cos, sin, attention_heads, eps, lengths=None, pages=None, ends=None
) -> Tensor:
    return hidden.new_empty(hidden.shape)
