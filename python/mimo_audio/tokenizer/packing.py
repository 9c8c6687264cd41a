"""Sequences packed back to back as rows [total, channels]: convolutions and norms that keep each one to itself.

An item's result does not depend on its company, and short items cost no padding to the longest. A convolution is one
matrix product over the rows that its taps gather (a row of zeros beyond either end of a sequence), so float32 means
float32: cuDNN's convolutions would round their inputs to TF32 by default.

    rows    a0 a1 a2 | b0 b1       lengths (3, 2); kernel 3, stride 2, padding 1
    taps    A0 = (0, a0, a1)   A1 = (a1, a2, 0) | B0 = (0, b0, b1)
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cumulative(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Start of every sequence, then the total: int32 [B + 1]."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def positions(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Position of every row in its sequence: int64 [sum(lengths)]."""
    return torch.cat([torch.arange(n, device="cpu") for n in lengths]).to(device)


def _taps(lengths: Sequence[int], counts: Sequence[int], kernel: int, stride: int, padding: int) -> Tensor:
    """Rows [sum(counts), kernel] that `counts` windows per sequence cover; outside of it, the row after the last."""
    total, rows = sum(lengths), []
    for start, n, count in zip([0, *accumulate(lengths)], lengths, counts, strict=False):
        row = torch.arange(count, device="cpu")[:, None] * stride - padding + torch.arange(kernel, device="cpu")
        rows.append((start + row).where((row >= 0) & (row < n), torch.tensor(total, device="cpu")))
    return torch.cat(rows)


def conv(layer: nn.Conv1d, x: Tensor, lengths: Sequence[int], out_lengths: Sequence[int]) -> Tensor:
    """`layer` over every sequence alone, with zeros beyond its end as far as `out_lengths` reach.

    x [sum(lengths), in] -> [sum(out_lengths), out].
    """
    (kernel,), (stride,), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
    taps = _taps(lengths, out_lengths, kernel, stride, padding).to(x.device)
    windows = F.pad(x, (0, 0, 0, 1))[taps]  # [sum(out_lengths), kernel, in]
    return F.linear(windows.flatten(1), layer.weight.transpose(1, 2).flatten(1), layer.bias)


def conv_transpose(layer: nn.ConvTranspose1d, x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[int]]:
    """`layer` over every sequence alone.

    x [sum(lengths), in] -> [sum(full), out] and full, the lengths (length - 1) stride + kernel.
    """
    (kernel,), (stride,) = layer.kernel_size, layer.stride
    full = [(n - 1) * stride + kernel for n in lengths]
    rows = _taps(full, lengths, kernel, stride, 0).to(x.device)  # where the taps of every input row go
    products = x @ layer.weight.transpose(1, 2).flatten(1)  # [sum(lengths), kernel * out]
    y = products.new_zeros(sum(full), layer.out_channels)
    if layer.bias is not None:
        y = y + layer.bias.to(y.dtype)  # under autocast the products are narrower than the bias
    return y.index_add(0, rows.flatten(), products.view(rows.numel(), -1)), full


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm of one group, over rows: x [B, length, channels] -> the same shape, in the weights' dtype.

    As sums over whole sequences, which a GPU spreads over all of itself: torch's kernel gives one block to a sequence.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(1, channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centered = wide - wide.mean((1, 2), keepdim=True)
        variance = centered.square().mean((1, 2), keepdim=True)
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias, centered, scale).to(self.weight.dtype)


def group_norm(layer: GroupNorm, x: Tensor, lengths: Sequence[int], keep: Sequence[int]) -> Tensor:
    """`layer` over the channels and time of every sequence alone, of which the first `keep` rows are returned."""
    if len(set(lengths)) == 1:
        return layer(x.view(len(lengths), lengths[0], -1))[:, : keep[0]].flatten(0, 1)
    pieces = [layer(piece[None])[0, :n] for piece, n in zip(x.split(list(lengths)), keep, strict=True)]
    return torch.cat(pieces)
