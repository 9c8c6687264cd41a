"""Rotary positions of queries and keys, for an attention that does not apply them itself."""

import torch
from torch import Tensor

from mimo_audio_native.ops.constants import require_constant
from mimo_audio_native.ops.register import register_fake


def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Rotates every head of q and k by the angles of its position (rotate-half), in one pass.

    Args:
        q, k: [T, H, D] and [T, K, D], or [B, T, H, D] and [B, T, K, D]; float32, bfloat16, float16 or float64, D even.
            Heads of D elements are read where they lie (slices of a fused [T, 3, H, D] are not copied).
        cos, sin: float32, of every position [T, D / 2], or of every row's own [B, T, D / 2]; constants: they must not
            require grad.
        inverse: rotates back.

    Returns:
        q and k, rotated in float32 or wider, in their shapes and dtype, contiguous. Differentiable any number of times:
        the gradient of a rotation is the rotation back.

    Raises:
        RuntimeError: wrong shapes, dtypes or devices; tables that require grad.

    Equal, bit for bit, to ``cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)`` of the halves ``x1, x2`` of a head
    (``reference.rotary``).
    """
    return torch.ops.mimo.rotary(q, k, cos, sin, inverse)


@register_fake("mimo::rotary")
def _(q, k, cos, sin, inverse=False) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _setup(ctx, inputs, output) -> None:
    _, _, cos, sin, ctx.inverse = inputs
    require_constant("rotary", cos, "cos")
    require_constant("rotary", sin, "sin")
    ctx.save_for_backward(cos, sin)


def _backward(ctx, grad_q: Tensor, grad_k: Tensor):
    return *torch.ops.mimo.rotary(grad_q, grad_k, *ctx.saved_tensors, not ctx.inverse), None, None, None


torch.library.register_autograd("mimo::rotary", _backward, setup_context=_setup)
