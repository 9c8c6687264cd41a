"""Sliding-window attention over packed sequences (MiMo-Audio report, section 2.1)."""

import torch
from torch import Tensor

from mimo_audio_native.ops.constants import require_constant
from mimo_audio_native.ops.register import refuse_forward_mode, refuse_second_derivative, register_fake


@refuse_forward_mode
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

    Args:
        q, k, v: [T, H, D] packed rows, float32, bfloat16, float16 or float64; D from 8 to 128 in steps of 8. Rows of D
            elements are read where they lie (slices of a fused [T, 3, H, D] are not copied).
        cu_seqlens: [B + 1] int32, offsets of the sequences from 0 to T, sequences may be empty; None: one sequence.
        left, right: rows seen before and after; -1 for no limit. Causal is right = 0.
        cos, sin: [P, D / 2] float32 rotary tables, row p for position p within a sequence, P >= the longest sequence;
            None for no rotation; constants: they must not require grad. q and k are rotated (rotate-half) in float32
            or wider; CUDA then rounds them to their dtype, as the definition does.
        scale: of the scores; None for 1 / sqrt(D).

    Returns:
        [T, H, D] in q's dtype; scores, soft-max and sums in float32 or wider (bfloat16 on CUDA: weights rounded to
        bfloat16 for the tensor cores). Differentiable once with respect to q, k, v.

    Raises:
        RuntimeError: wrong shapes, dtypes or devices; tables that require grad; offsets that do not rise from 0 to T or
            tables shorter than the longest sequence (on CUDA, where looking would synchronise, the kernel traps).

    Equivalent to a soft-max over the scores, -inf outside the window (``reference.window_attention``).
    """
    return torch.ops.mimo.window_attention(q, k, v, cu_seqlens, left, right, cos, sin, scale)[0]


def _row_values(q: Tensor) -> Tensor:
    return q.new_empty((q.shape[1], q.shape[0]), dtype=torch.promote_types(q.dtype, torch.float32))


@register_fake("mimo::window_attention")
def _(q, k, v, cu_seqlens=None, left=-1, right=-1, cos=None, sin=None, scale=None) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), _row_values(q)


@register_fake("mimo::window_attention_backward")
def _(grad_out, q, k, v, out, lse, cu_seqlens, left, right, cos, sin, scale) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


def _setup(ctx, inputs, output) -> None:
    q, k, v, cu_seqlens, ctx.left, ctx.right, cos, sin, ctx.scale = inputs
    require_constant("window_attention", cos, "cos")
    require_constant("window_attention", sin, "sin")
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(q, k, v, out, lse, cu_seqlens, cos, sin)


def _backward(ctx, grad_out: Tensor, _grad_lse: Tensor | None):
    q, k, v, out, lse, cu_seqlens, cos, sin = ctx.saved_tensors
    grads = torch.ops.mimo.window_attention_backward(
        grad_out, q, k, v, out, lse, cu_seqlens, ctx.left, ctx.right, cos, sin, ctx.scale
    )
    return *grads, None, None, None, None, None, None


torch.library.register_autograd("mimo::window_attention", _backward, setup_context=_setup)
refuse_second_derivative("mimo::window_attention_backward")
