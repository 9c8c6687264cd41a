"""Residual vector quantization: nearest-codebook search and look-up (MiMo-Audio report, section 2.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def rvq_decode(codes: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Sum of the chosen codebook entries.

    Args:
        codes: [R', N] int64, R' <= R: codes of the first R' layers.
        codebooks: R tensors [K_r, D], float32 or float64.

    Returns:
        [N, D] in the codebooks' dtype. Differentiable with respect to the codebooks.

    Raises:
        RuntimeError: a code outside 0 .. K_r - 1 (on CUDA the kernel traps), wrong shapes, dtypes or devices.

    Equivalent to ``sum(codebook[index] for index, codebook in zip(codes, codebooks))``.
    """
    return torch.ops.mimo.rvq_decode(codes, list(codebooks))


@torch.library.register_fake("mimo::rvq_decode")
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
