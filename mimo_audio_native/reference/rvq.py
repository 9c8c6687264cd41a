"""Definition of residual vector quantization (RVQ) in plain torch.

MiMo-Audio report, section 2.1: 20 layers, codebooks of 1024, 1024 and 18 x 128 entries; layer r quantizes what the
layers before it left over.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def rvq_encode(x: Tensor, codebooks: Sequence[Tensor], tables: object = None) -> Tensor:
    """Greedy residual search: per layer the entry nearest to the residual, ties to the smallest index.

    x [N, D], codebooks R tensors [K_r, D] -> codes [R, N] int64. tables: as the op takes them, of no use here.
    """
    residual = x
    codes = []
    for codebook in codebooks:
        # The squared distance without |residual|^2, which no entry can change.
        distance = codebook.square().sum(1) - 2 * residual @ codebook.T  # [N, K_r]
        index = distance.argmin(1)
        codes.append(index)
        residual = residual - codebook[index]
    return torch.stack(codes) if codes else x.new_zeros((0, len(x)), dtype=torch.int64)


def rvq_decode(codes: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Sum of the chosen entries.

    codes [R', N] with R' <= R (the first R' layers), codebooks R tensors [K_r, D] -> [N, D].
    """
    total = codebooks[0].new_zeros((codes.shape[1], codebooks[0].shape[1]))
    for index, codebook in zip(codes, codebooks, strict=False):
        total = total + codebook[index]
    return total


def rvq_quantize(x: Tensor, codebooks: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The training form: the quantized vectors and what commitment loss and EMA codebook updates need.

    x [N, D], codebooks R tensors [K_r, D] -> quantized [N, D] (its gradient passes straight through to x),
    codes [R, N] int64, commitment [R] (mean squared distance of the residual to its entry, gradient to x only),
    counts [sum K] (how often each entry was chosen, layers back to back), sums [sum K, D] (sum of the residuals that
    chose it). Codebooks get no gradient: they follow counts and sums by exponential moving average.
    """
    codes = rvq_encode(x.detach(), codebooks)
    residual = x
    commitment, counts, sums = [], [], []
    for index, codebook in zip(codes, codebooks, strict=True):
        entry = codebook.detach()[index]
        commitment.append((residual - entry).square().mean())
        counts.append(torch.bincount(index, minlength=len(codebook)).to(x.dtype))
        sums.append(torch.zeros_like(codebook).index_add_(0, index, residual.detach()))
        residual = residual - entry
    quantized = x + (rvq_decode(codes, [c.detach() for c in codebooks]) - x).detach()
    return quantized, codes, torch.stack(commitment), torch.cat(counts), torch.cat(sums)
