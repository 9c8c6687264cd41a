"""Weights of 8 or 4 bits: quantisation, and products of activations with them."""

import torch
from torch import Tensor

from mimo_audio_native import reference
from mimo_audio_native.ops.register import register_fake
from mimo_audio_native.reference.quantized_linear import ACTIVATION_GROUP, GROUPS, PANEL_ROWS

NUMBERS_AT_ONCE = 1 << 24  # numbers of a weight that are quantised at a time: temporary memory of some 500 MB


def row_bytes(columns: int, bits: int, group: int = 32) -> int:
    """Bytes per row of a quantised weight of so many columns. Raises ValueError where there is no such format."""
    if bits not in (4, 8):
        raise ValueError(f"bits: expected 4 or 8, got {bits!r}")
    if bits == 4 and group not in GROUPS:
        raise ValueError(f"group: expected {' or '.join(map(str, GROUPS))}, got {group!r}")
    multiple = group if bits == 4 else ACTIVATION_GROUP
    if columns < 1 or columns % multiple:
        raise ValueError(f"weight: expected columns in a multiple of {multiple}, got {columns}")
    return columns + 4 if bits == 8 else columns // 2 + columns // group * 2


def quantize_weight(weight: Tensor, bits: int, group: int = 32) -> Tensor:
    """Quantises a weight matrix, for ``quantized_linear``, ``backbone_step`` and ``patch_decode``.

    Args:
        weight: [N, K], float32, bfloat16 or float16, finite; K a multiple of 32, or of `group` with 4 bits.
        bits: 8 (a float32 scale per row) or 4 (a bfloat16 scale per `group` neighbours of a row).
        group: 32 or 128, with 4 bits: 4.5 or 4.125 bits per weight in all.

    Returns:
        uint8 [N, K + 4] or [N, K / 2 + 2 K / group]: rows interleaved in panels of 16, as
        csrc/include/mimo/weight_format.h draws them. Plain torch on the weight's device.

    Raises:
        ValueError: wrong sizes, or a weight that is not finite.

    Equivalent to ``reference.quantize_weight``.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(f"weight: expected floating-point [N, K], got {weight.dtype} {list(weight.shape)}")
    packed = torch.empty(len(weight), row_bytes(weight.shape[1], bits, group), dtype=torch.uint8, device=weight.device)
    step = max(1, NUMBERS_AT_ONCE // weight.shape[1] // PANEL_ROWS) * PANEL_ROWS
    for first in range(0, len(weight), step):
        rows = weight[first : first + step].detach().float()
        if not rows.isfinite().all():
            raise ValueError("weight: expected finite numbers, got infinite ones or NaN")
        packed[first : first + step] = reference.quantize_weight(rows, bits, group)
    return packed


def dequantize_weight(packed: Tensor, columns: int) -> Tensor:
    """The float32 [N, columns] that a weight of ``quantize_weight`` stands for."""
    return reference.dequantize_weight(packed, columns)


def quantized_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer whose weight is quantised.

    The activations of every row are quantised as well, to 8 bits with a scale per 32 neighbours; sums are exact within
    these and float32 beyond.

    Args:
        x: [.., K] float32, bfloat16 or float16.
        weight: uint8 [N, bytes per row] of ``quantize_weight`` for K columns.
        bias: [N] of x's dtype, or None.

    Returns:
        [.., N] of x's dtype. A row's result depends neither on the other rows nor on threads; numbers that are not
        finite make it NaN. Not differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes or devices.

    Equivalent to ``F.linear(reference.quantized_rows(x), dequantize_weight(weight, K), bias)``.
    """
    return torch.ops.mimo.quantized_linear(x, weight, bias)


@register_fake("mimo::quantized_linear")
def _(x, weight, bias=None) -> Tensor:
    return x.new_empty((*x.shape[:-1], len(weight)))
