"""What torch does not ask the kernels: arguments on different devices (one of them meta), gradients of gradients."""

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn

WINDOW = torch.hann_window(16)
CODEBOOKS = [torch.randn(6, 8), torch.randn(4, 8)]
HEADS = torch.randn(5, 2, 16)
TABLE = torch.randn(5, 8)
BOUNDS = torch.tensor([0, 2, 5], dtype=torch.int32)


def stft(wave: Tensor, window: Tensor) -> Tensor:
    return mn.stft(wave, window, 16, 4)


def istft(spectrum: Tensor, window: Tensor) -> Tensor:
    return mn.istft(spectrum, window, 4)


def log_mel(wave: Tensor, window: Tensor, filterbank: Tensor) -> Tensor:
    return mn.log_mel(wave, window, filterbank, 4)


def vocoder_head(x: Tensor, window: Tensor, cu_seqlens: Tensor) -> Tensor:
    return mn.vocoder_head(x, window, 4, cu_seqlens)


def window_attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return mn.window_attention(q, k, v, cu_seqlens, cos=cos, sin=sin)


ARGUMENTS = [
    (stft, {"wave": torch.randn(1, 40), "window": WINDOW}),
    (istft, {"spectrum": torch.randn(1, 3, 9, dtype=torch.complex64), "window": WINDOW}),
    (log_mel, {"wave": torch.randn(1, 40), "window": WINDOW, "filterbank": mn.mel_filterbank(24000, 16, 5)}),
    (vocoder_head, {"x": torch.randn(5, 18), "window": WINDOW, "cu_seqlens": BOUNDS}),
    (mn.rvq_encode, {"x": torch.randn(5, 8), "codebooks": CODEBOOKS}),
    (mn.rvq_quantize, {"x": torch.randn(5, 8), "codebooks": CODEBOOKS}),
    (mn.rvq_decode, {"codes": torch.zeros(2, 5, dtype=torch.int64), "codebooks": CODEBOOKS}),
    (
        window_attention,
        {"q": HEADS, "k": HEADS, "v": HEADS, "cu_seqlens": BOUNDS, "cos": TABLE, "sin": TABLE},
    ),
]


@pytest.mark.parametrize(("op", "arguments"), ARGUMENTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_meta_tensor_among_others_is_an_error(op, arguments) -> None:
    first, *rest = arguments
    for name in rest:
        value = arguments[name]
        if isinstance(value, list):
            meta, named = [value[0], value[1].to("meta")], rf"{name}\[1\]"
        else:
            meta, named = value.to("meta"), name
        message = rf"{op.__name__}: {named} must be on the device of {first} \(cpu\), got meta"
        with pytest.raises(RuntimeError, match=message):
            op(**(arguments | {name: meta}))


def test_meta_tensors_alone_give_a_meta_tensor() -> None:
    assert stft(torch.zeros(1, 40, device="meta"), WINDOW.to("meta")).shape == (1, 11, 9)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [pair for pair in ARGUMENTS if pair[0] not in (mn.rvq_encode, mn.rvq_decode)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_second_derivatives_are_an_error_and_not_zero(op, arguments) -> None:
    name, *_ = arguments
    first = arguments[name].clone().requires_grad_()
    out = op(**(arguments | {name: first}))
    out = out[2] if isinstance(out, tuple) else out  # rvq_quantize's commitment
    (grad,) = torch.autograd.grad(out.abs().square().sum(), first, create_graph=True)
    with pytest.raises(RuntimeError, match=f"{op.__name__}_backward: second derivatives are not implemented"):
        grad.abs().square().sum().backward()


def test_forward_mode_derivatives_are_refused() -> None:
    """torch would take them for zero."""
    wave, window = torch.randn(1, 960), torch.hann_window(96)
    bank = mn.mel_filterbank(24000, 96, 10)
    q, cos = torch.randn(12, 2, 16), torch.ones(12, 8)
    bounds = torch.tensor([0, 12], dtype=torch.int32)
    calls = {
        "log_mel": lambda x: mn.log_mel(x, window, bank, 24),
        "stft": lambda x: mn.stft(x, window, 96, 24),
        "vocoder_head": lambda x: mn.vocoder_head(x.reshape(-1, 96)[:, :98], window, 24),
        "window_attention": lambda x: mn.window_attention(x[0, :384].view(12, 2, 16), q, q, bounds, 2, 2, cos, cos),
        "rvq_quantize": lambda x: mn.rvq_quantize(x.view(60, 16), [torch.randn(4, 16)]),
    }
    for name, call in calls.items():
        with pytest.raises(RuntimeError, match=f"{name}: forward-mode derivatives are not implemented"):
            torch.func.jvp(call, (wave,), (torch.ones_like(wave),))
