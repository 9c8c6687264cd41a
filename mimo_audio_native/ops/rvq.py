"""Residual vector quantization: nearest-codebook search and look-up (MiMo-Audio report, section 2.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_audio_native.ops.register import (
    float32_under_autocast,
    refuse_forward_mode,
    refuse_second_derivative,
    register_fake,
)
from mimo_audio_native.ops.rvq_tables import RvqTables


def rvq_encode(x: Tensor, codebooks: Sequence[Tensor], tables: RvqTables | None = None) -> Tensor:
    """Greedy residual search: per layer the entry nearest to what the layers before it left over.

    The codes are exact: a layer minimises ``|e_k|^2 - 2 r.e_k`` in float64 over its entries e_k, r the residual in
    x's dtype, ties to the smallest k. So float32 codes depend neither on the batch nor on threads, instruction set
    or device.

    Args:
        x: [N, D], float32 or float64.
        codebooks: R tensors [K_r, D] of x's dtype.
        tables: keeps what the CUDA search knows of the codebooks from call to call, always that of the codebooks
            given; without it every call makes its own, which at full size costs as much as 2000 rows.

    Returns:
        [R, N] int64. Not differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes or devices; on the CPU also NaN or infinity in x (naming the row) or in a
            codebook. On CUDA, where checking would synchronise, such a row gets valid codes without meaning.

    Equivalent to ``reference.rvq_encode``, whose float32 scores decide close calls by their rounding errors.
    """
    return torch.ops.mimo.rvq_encode(x, list(codebooks), None if tables is None else tables.of(codebooks))


@register_fake("mimo::rvq_encode")
def _(x: Tensor, codebooks: list[Tensor], tables: list[Tensor] | None = None) -> Tensor:
    return x.new_empty((len(codebooks), x.shape[0]), dtype=torch.int64)


@refuse_forward_mode
def rvq_quantize(x: Tensor, codebooks: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The training form of ``rvq_encode``, with what the commitment loss and EMA codebook updates need.

    Args:
        x: [N, D], float32 or float64.
        codebooks: R tensors [K_r, D] of x's dtype.

    Returns:
        quantized [N, D]: sum of the chosen entries, equal to ``rvq_decode(codes, codebooks)``.
        codes [R, N] int64: those of ``rvq_encode``.
        commitment [R]: mean squared distance of the residual to the chosen entry (NaN for N = 0).
        counts [sum K]: how often each entry was chosen, layers back to back, in x's dtype.
        sums [sum K, D]: sum, in row order, of the residuals that chose it.

        The gradient of quantized passes straight through to x; the commitment has its true gradient to x. The
        codebooks get none: they follow counts and sums. Repeated calls give equal bits (no atomic additions).

    Raises:
        RuntimeError: as ``rvq_encode``. On CUDA, NaN or infinity in x shows as a NaN or infinite commitment.

    Equivalent to ``reference.rvq_quantize``.
    """
    return torch.ops.mimo.rvq_quantize(x, list(codebooks))


@register_fake("mimo::rvq_quantize")
def _(x: Tensor, codebooks: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    entries = sum(codebook.shape[0] for codebook in codebooks)
    return (
        x.new_empty(x.shape),
        x.new_empty((len(codebooks), x.shape[0]), dtype=torch.int64),
        x.new_empty((len(codebooks),)),
        x.new_empty((entries,)),
        x.new_empty((entries, x.shape[1])),
    )


@register_fake("mimo::rvq_quantize_backward")
def _(grad_quantized: Tensor, grad_commitment: Tensor, x: Tensor, codes: Tensor, codebooks: list[Tensor]) -> Tensor:
    return x.new_empty(x.shape)


def _quantize_setup(ctx, inputs, output) -> None:
    x, codebooks = inputs
    _, codes, _, counts, sums = output
    ctx.mark_non_differentiable(codes, counts, sums)
    ctx.save_for_backward(x, codes, *codebooks)


def _quantize_backward(ctx, grad_quantized: Tensor, _codes, grad_commitment: Tensor, _counts, _sums):
    x, codes, *codebooks = ctx.saved_tensors
    grad_x = torch.ops.mimo.rvq_quantize_backward(grad_quantized, grad_commitment, x, codes, codebooks)
    return grad_x, [None] * len(codebooks)


torch.library.register_autograd("mimo::rvq_quantize", _quantize_backward, setup_context=_quantize_setup)
refuse_second_derivative("mimo::rvq_quantize_backward")


@refuse_forward_mode
def rvq_decode(codes: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Sum of the chosen codebook entries.

    Args:
        codes: [R', N] int64, R' <= R: codes of the first R' layers.
        codebooks: R tensors [K_r, D], float32 or float64.

    Returns:
        [N, D] in the codebooks' dtype. Differentiable with respect to the codebooks.

    Raises:
        RuntimeError: a code outside 0 .. K_r - 1 (on CUDA it counts as 0, and ``raise_device_errors`` raises), wrong
            shapes, dtypes or devices.

    Equivalent to ``sum(codebook[index] for index, codebook in zip(codes, codebooks))``.
    """
    return torch.ops.mimo.rvq_decode(codes, list(codebooks))


@register_fake("mimo::rvq_decode")
def _(codes: Tensor, codebooks: list[Tensor]) -> Tensor:
    return codebooks[0].new_empty((codes.shape[1], codebooks[0].shape[1]))


def _decode_setup(ctx, inputs, output) -> None:
    codes, codebooks = inputs
    ctx.save_for_backward(codes)
    ctx.shapes = [codebook.shape for codebook in codebooks]


def _decode_backward(ctx, grad: Tensor):
    (codes,) = ctx.saved_tensors
    grads = [grad.new_zeros(shape) for shape in ctx.shapes]
    for index, codebook_grad in zip(codes, grads, strict=False):
        codebook_grad.index_add_(0, index, grad)
    return None, grads


torch.library.register_autograd("mimo::rvq_decode", _decode_backward, setup_context=_decode_setup)
float32_under_autocast("mimo::rvq_decode", "mimo::rvq_quantize", "mimo::rvq_quantize_backward")
float32_under_autocast("mimo::rvq_encode", keeps_last=True)  # its tables are bfloat16 and float32
