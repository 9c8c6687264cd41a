"""The parts of the block stack: linear layers of one bfloat16 row."""

import pytest
import torch
import torch.nn.functional as F

from mimo_audio.lm.transformer import Linear


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(70,), (1, 70), (1, 1, 70), (2, 70), (1, 3, 70)])
def test_linear_of_one_bfloat16_row_is_that_of_many(shape, bias):
    linear = Linear(70, 33, bias=bias).bfloat16()
    x = torch.randn(shape).bfloat16().requires_grad_()
    y = linear(x)
    expected = F.linear(x.double(), linear.weight.double(), linear.bias.double() if bias else None)
    assert y.dtype == torch.bfloat16
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, atol=1e-6, rtol=2**-8)  # one rounding
    (gradient,) = torch.autograd.grad(y.sum(), x)
    (wanted,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(gradient.double(), wanted.double(), atol=0.01, rtol=0.01)
