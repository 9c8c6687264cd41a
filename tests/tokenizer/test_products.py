"""Linear layers with what follows them: against plain torch in float64, as weights change, with gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mimo_audio.tokenizer import products

ACTIVATIONS = {
    "": lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


def definition(layer, x, activation="", residual=None):
    y = F.linear(x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double())
    y = ACTIVATIONS[activation](y)
    return y if residual is None else y + residual.double()


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_is_the_layer_and_then_the_activation(activation, dtype, rows, gradient):
    layer = nn.Linear(48, 33).to(dtype)
    x = torch.randn(rows, 48).to(dtype)
    with torch.set_grad_enabled(gradient):
        y = products.linear(layer, x, activation)
    assert y.dtype == dtype
    assert y.requires_grad == gradient
    tolerance = 2e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(y.double(), definition(layer, x, activation), atol=tolerance, rtol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [3, 200])
def test_residual(rows, bias):
    layer = nn.Linear(48, 33, bias=bias)
    x, residual = torch.randn(rows, 48), torch.randn(rows, 33)
    before = residual.clone()
    y = products.linear(layer, x, residual=residual)
    torch.testing.assert_close(y.double(), definition(layer, x, residual=residual), atol=2e-5, rtol=2e-5)
    assert torch.equal(residual, before)


@torch.no_grad()
def test_a_changed_weight_is_packed_again():
    layer, x = nn.Linear(48, 33), torch.randn(200, 48)
    products.linear(layer, x)
    twin = copy.deepcopy(layer)
    layer.weight.mul_(2)
    twin.weight.data = torch.randn(33, 48)
    for one in (layer, twin, layer.bfloat16().float()):
        torch.testing.assert_close(products.linear(one, x).double(), definition(one, x), atol=2e-5, rtol=2e-5)
