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


def random_group_norm(channels: int) -> packing.GroupNorm:
    layer = packing.GroupNorm(channels)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def plain_group_norm(layer: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.group_norm(x.T[None], 1, layer.weight, layer.bias, layer.eps)[0].T


@pytest.mark.parametrize("lengths", [LENGTHS, [7, 7, 7]])
def test_group_norm(lengths):
    layer = random_group_norm(4)
    items = [torch.randn(n, 4) * n for n in lengths]
    keep = [n - (n > 1) for n in lengths]
    expected = [plain_group_norm(layer, item)[:n] for item, n in zip(items, keep, strict=True)]
    assert_close(packing.group_norm(layer, torch.cat(items), lengths, keep), torch.cat(expected), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_group_norm_of_many_rows_far_from_zero():
    """Numbers around 100 are 7.6e-6 apart; a sum in one float, or a mean of squares less a square, would lose more."""
    layer, x = random_group_norm(32), torch.randn(20_000, 32) + 100
    found = layer(x[None])[0]
    assert_close(found.double(), plain_group_norm(layer.double(), x.double()), atol=5e-5, rtol=0)


@pytest.mark.parametrize(("weights", "rows"), [(torch.bfloat16,) * 2, (torch.float32, torch.bfloat16)])
def test_group_norm_of_bfloat16_has_float32_statistics_and_the_dtype_of_its_weights(weights, rows):
    layer = random_group_norm(16).to(weights)
    x = (torch.randn(500, 16) + 3).to(rows)
    found, exact = layer(x[None])[0], plain_group_norm(layer.double(), x.double())
    assert found.dtype == weights
    assert_close(found.double(), exact, atol=1e-5, rtol=2**-8 if weights == torch.bfloat16 else 1e-5)


def test_group_norm_has_the_gradients_of_torchs():
    layer, x = random_group_norm(4).double(), torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    inputs, grad = (x, layer.weight, layer.bias), torch.randn(9, 4, dtype=torch.float64)
    found = torch.autograd.grad(layer(x[None])[0], inputs, grad)
    for a, b in zip(found, torch.autograd.grad(plain_group_norm(layer, x), inputs, grad), strict=True):
        assert_close(a, b)
