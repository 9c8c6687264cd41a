"""Attention inside patches of a few frames (MiMo-Audio report, section 2.2: the patch encoder)."""

import torch
from torch import Tensor

from mimo_audio_native.ops.constants import require_constant
from mimo_audio_native.ops.register import refuse_forward_mode, refuse_second_derivative, register_fake


@refuse_forward_mode
def patch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Every frame attends to the frames of its own patch.

    Args:
        q, k, v: [P, G, H, D] P patches of G frames, float32, bfloat16, float16 or float64; G from 1 to 16, D from 8 to
            128 in steps of 8. Rows of D elements are read where they lie (slices of a fused [P, G, 3, H, D] are not
            copied) if they begin at multiples of 16 bytes.
        cos, sin: [positions, D / 2] float32 rotary tables, row g for frame g of a patch, at least G rows; None for no
            rotation; constants: they must not require grad. q and k are rotated (rotate-half) in float32 or wider.
        causal: a frame sees itself and the frames before it only.
        scale: of the scores; None for 1 / sqrt(D).

    Returns:
        [P, G, H, D] in q's dtype; everything between input and output is float32 or wider. Differentiable once with
        respect to q, k, v; nothing but the arguments is kept for the gradient.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or scale; tables that require grad or have fewer than G rows.

    Equivalent to a soft-max over [P, H, G, G] scores (``reference.patch_attention``).
    """
    return torch.ops.mimo.patch_attention(q, k, v, cos, sin, causal, scale)


@register_fake("mimo::patch_attention")
def _(q, k, v, cos=None, sin=None, causal=False, scale=None) -> Tensor:
    return q.new_empty(q.shape)


@register_fake("mimo::patch_attention_backward")
def _(grad_out, q, k, v, cos, sin, causal, scale) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


def _setup(ctx, inputs, output) -> None:
    q, k, v, cos, sin, ctx.causal, ctx.scale = inputs
    require_constant("patch_attention", cos, "cos")
    require_constant("patch_attention", sin, "sin")
    ctx.save_for_backward(q, k, v, cos, sin)


def _backward(ctx, grad_out: Tensor):
    grads = torch.ops.mimo.patch_attention_backward(grad_out, *ctx.saved_tensors, ctx.causal, ctx.scale)
    return *grads, None, None, None, None


torch.library.register_autograd("mimo::patch_attention", _backward, setup_context=_setup)
refuse_second_derivative("mimo::patch_attention_backward")
