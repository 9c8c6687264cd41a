"""The Transformer stacks: windows, causality, rotary positions, norms."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mimo_audio.tokenizer.products import linear
from mimo_audio.tokenizer.transformer import TransformerStack, rotary_tables


class Stack(TransformerStack):
    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        layout = self.layout(lengths, x.device)
        for layer in self.layers:
            x = layer(x, layout)
        return x


def stack(window=(-1, -1), causal=False, norm="LayerNorm", activation="gelu", depth=2) -> Stack:
    torch.manual_seed(1)
    return Stack(
        width=16,
        heads=2,
        ffn_dim=32,
        depth=depth,
        window=window,
        causal=causal,
        activation=activation,
        norm=norm,
        theta=10000,
    )


def reach(module: Stack, length: int, frame: int) -> list[int]:
    """Frames whose output depends on the input of `frame`."""
    x = torch.randn(length, 16)
    changed = x.clone()
    changed[frame] += torch.randn(16)  # a constant would vanish in the norms
    difference = (module(x, [length]) - module(changed, [length])).abs().amax(1)
    return difference.nonzero()[:, 0].tolist()


def test_windows_are_inclusive_and_grow_with_depth():
    assert reach(stack((3, 1)), 30, 15) == list(range(15 - 2, 15 + 6 + 1))
    assert reach(stack((3, 1), depth=1), 30, 15) == list(range(15 - 1, 15 + 3 + 1))


def test_causal_frames_never_see_the_future():
    assert reach(stack(causal=True), 20, 12) == list(range(12, 20))
    assert reach(stack((4, 9), causal=True, depth=1), 20, 12) == list(range(12, 17))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[9, 4, 17], [6, 6]])
def test_a_window_wider_than_the_sequences_is_unlimited(causal, lengths):
    x = torch.randn(sum(lengths), 16)
    assert_close(stack((99, 99), causal)(x, lengths), stack((-1, -1), causal)(x, lengths), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [(-1, -1), (3, 2), (-1, 2), (3, -1)])
@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
def test_packed_equals_alone(window, norm):
    module, lengths = stack(window, norm=norm), [9, 1, 17]
    items = [torch.randn(n, 16) for n in lengths]
    expected = torch.cat([module(item, [len(item)]) for item in items])
    assert_close(module(torch.cat(items), lengths), expected, atol=1e-5, rtol=1e-5)


def test_only_relative_positions_matter():
    module, x = stack((2, 2)), torch.randn(40, 16)
    assert_close(module(x, [40])[10:30], module(x[5:], [35])[5:25], atol=1e-5, rtol=1e-5)


def test_rotary_tables():
    cos, sin = rotary_tables(50, 8, 10000, torch.device("cpu"))
    angle = torch.arange(50).double()[:, None] * torch.tensor([1, 1e-1, 1e-2, 1e-3]).double()
    assert_close(cos.double(), angle.cos(), atol=1e-5, rtol=0)
    assert_close(sin.double(), angle.sin(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_the_activation_is_that_of_the_feed_forward_network(activation):
    definition = {
        "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "gelu_new": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "relu": lambda x: x.clamp(min=0),
        "silu": lambda x: x * torch.sigmoid(x),
    }[activation]
    layer = stack(activation=activation, depth=1).layers[0]
    x = torch.randn(50) * 3
    same = torch.nn.Linear(50, 50, bias=False)
    torch.nn.init.eye_(same.weight)
    assert_close(linear(same, x[None], layer.activation)[0], definition(x), atol=1e-5, rtol=1e-5)
