"""Convolutions and norms over packed rows equal torch's on every sequence alone."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mimo_audio.tokenizer import packing

LENGTHS = [5, 1, 8, 3, 12]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 2, 2), (2, 2, 0), (1, 1, 0), (4, 3, 2)]
)
def test_conv(kernel, stride, padding):
    layer = nn.Conv1d(4, 6, kernel, stride, padding)
    lengths = [n for n in LENGTHS if n + 2 * padding >= kernel]
    items = [torch.randn(n, 4) for n in lengths]
    expected = [layer(item.T[None])[0].T for item in items]
    out = packing.conv(layer, torch.cat(items), lengths, [len(y) for y in expected])
    assert_close(out, torch.cat(expected), atol=1e-6, rtol=1e-5)


def test_conv_pads_the_tail_with_zeros():
    layer = nn.Conv1d(4, 6, 2, 2, bias=False)
    items = [torch.randn(n, 4) for n in LENGTHS]
    expected = [layer(nn.functional.pad(item, (0, 0, 0, len(item) % 2)).T[None])[0].T for item in items]
    out = packing.conv(layer, torch.cat(items), LENGTHS, [-(-n // 2) for n in LENGTHS])
    assert_close(out, torch.cat(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (5, 2), (1, 2), (4, 1)])
def test_conv_transpose(kernel, stride):
    layer = nn.ConvTranspose1d(4, 6, kernel, stride)
    items = [torch.randn(n, 4) for n in LENGTHS]
    expected = [layer(item.T[None])[0].T for item in items]
    out, full = packing.conv_transpose(layer, torch.cat(items), LENGTHS)
    assert full == [len(y) for y in expected]
    assert_close(out, torch.cat(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lengths", [LENGTHS, [7, 7, 7]])
def test_group_norm(lengths):
    layer = nn.GroupNorm(1, 4)
    nn.init.normal_(layer.weight)
    items = [torch.randn(n, 4) * n for n in lengths]
    keep = [n - (n > 1) for n in lengths]
    expected = [layer(item.T[None])[0].T[:n] for item, n in zip(items, keep, strict=True)]
    assert_close(packing.group_norm(layer, torch.cat(items), lengths, keep), torch.cat(expected), atol=1e-6, rtol=1e-5)
