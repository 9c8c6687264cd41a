"""The parts of the block stack: linear layers of a few rows."""

import pytest
import torch
import torch.nn.functional as F

from mimo_audio.lm.transformer import Linear


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(70,), (1, 70), (1, 1, 70), (2, 70), (1, 4, 70), (5, 70)])
def test_linear_of_a_few_rows_is_that_of_many(shape, bias, dtype, gradient):
    linear = Linear(70, 33, bias=bias).to(dtype)
    x = torch.randn(shape).to(dtype).requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        y = linear(x)
    expected = F.linear(x.double(), linear.weight.double(), linear.bias.double() if bias else None)
    assert y.dtype == dtype
    assert y.shape == expected.shape
    rounding = 2**-8 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(y.double(), expected, atol=1e-6, rtol=rounding)  # one rounding
    assert y.requires_grad == gradient
    if gradient:
        (got,) = torch.autograd.grad(y.sum(), x)
        (wanted,) = torch.autograd.grad(expected.sum(), x)
        torch.testing.assert_close(got.double(), wanted.double(), atol=0.01, rtol=0.01)


def test_autocast_and_tangents_reach_few_rows():
    linear, x = Linear(70, 33).requires_grad_(False), torch.randn(2, 70)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x).dtype == torch.bfloat16
    _, tangent = torch.func.jvp(linear, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, F.linear(torch.ones_like(x), linear.weight))
