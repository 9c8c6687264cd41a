"""log_mel against its definition, on every backend, with gradients, fakes and bad input."""

import math

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

TOLERANCE = {torch.float32: 1e-6, torch.float64: 2e-14}  # of the frame's largest mel value


def inputs(backend_device: str, dtype: torch.dtype, length: int, n_fft: int, n_mels: int) -> tuple[Tensor, ...]:
    wave = torch.randn(2, length, dtype=dtype, device=backend_device)
    window = torch.hann_window(n_fft, dtype=dtype, device=backend_device)
    return wave, window, mn.mel_filterbank(24000, n_fft, n_mels).to(backend_device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize(
    ("n_fft", "hop", "n_mels", "length"),
    [(960, 240, 128, 5000), (960, 240, 128, 200), (240, 120, 40, 1700), (48, 7, 5, 60), (90, 30, 33, 1)],
)
def test_equals_the_definition(backend, n_fft, hop, n_mels, length, padding, dtype) -> None:
    wave, window, filterbank = inputs(backend.device, dtype, length, n_fft, n_mels)
    # The definition in float64: the float32 one has an error of its own, as large as ours.
    expected = reference.log_mel(wave.double(), window.double(), filterbank.double(), hop, 1e-7, padding)
    result = backend.ops.log_mel(wave, window, filterbank, hop, 1e-7, padding)
    assert result.dtype == dtype
    assert result.shape == expected.shape
    if expected.numel():
        mel, wanted = result.double().exp(), expected.exp()
        assert ((mel - wanted).abs() <= TOLERANCE[dtype] * wanted.amax(-1, keepdim=True)).all()


def floor_between(mel: Tensor) -> float:
    """A floor that clamps about half of the values and lies near none of them (rounding must not decide)."""
    values = mel.flatten().sort().values
    middle = values[len(values) // 3 : 2 * len(values) // 3]
    widest = int(middle.diff().argmax())
    return float(middle[widest : widest + 2].mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize(
    ("n_fft", "hop", "length"), [(960, 240, 3000), (240, 120, 1700), (48, 7, 60), (48, 60, 500), (90, 30, 45)]
)
def test_gradient_equals_the_definition(backend, n_fft, hop, length, padding, dtype) -> None:
    wave, window, _ = inputs(backend.device, dtype, length, n_fft, 4)
    bins = n_fft // 2 + 1
    filterbank = torch.rand(bins, 9, dtype=dtype) * (torch.rand(bins, 9) < 0.3)  # holes, overlaps, any order
    filterbank[:, 4] = 0
    filterbank = filterbank.to(backend.device)
    floor = floor_between(reference.log_mel(wave, window, filterbank, hop, 1e-7, padding).exp())
    x = wave.double().requires_grad_()
    expected = reference.log_mel(x, window.double(), filterbank.double(), hop, floor, padding)
    grad = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, x, grad)
    result = backend.ops.log_mel_backward(grad.to(dtype), wave, window, filterbank, hop, floor, padding)
    assert result.dtype == dtype
    # Division by small magnitudes amplifies rounding.
    assert (result - wanted).abs().max() <= 20 * TOLERANCE[dtype] * wanted.abs().max()


def test_silence_has_the_floor_and_no_gradient(backend) -> None:
    wave, window, filterbank = inputs(backend.device, torch.float32, 600, 96, 10)
    wave[0] = 0
    result = backend.ops.log_mel(wave, window, filterbank, 24, 1e-7, "center")
    torch.testing.assert_close(result[0], torch.full_like(result[0], math.log(1e-7)))
    for floor in (1e-7, 1e3):  # magnitude 0; everything clamped
        grad = backend.ops.log_mel_backward(torch.ones_like(result), wave, window, filterbank, 24, floor, "center")
        torch.testing.assert_close(grad[0], torch.zeros_like(grad[0]), rtol=0, atol=0)
        assert grad.isfinite().all()
        assert bool((grad[1] != 0).any()) == (floor < 1)


def test_gradient_at_magnitude_zero_is_zero(backend) -> None:
    """One bin has magnitude 0 in a filter whose other bin sounds."""
    n = torch.arange(64, dtype=torch.float64, device=backend.device)
    wave = torch.cos(2 * math.pi * n * 2 / 16).round(decimals=15)[None]  # bin 2 of 16; frames hold whole periods
    window = torch.ones(16, dtype=torch.float64, device=backend.device)
    filterbank = torch.zeros(9, 1, dtype=torch.float64, device=backend.device)
    filterbank[0], filterbank[2] = 1, 1
    grad = backend.ops.log_mel_backward(
        torch.ones(1, 4, 1, dtype=torch.float64, device=backend.device), 0 * wave, window, filterbank, 16, 1e-7, "same"
    )
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=0)
    grad = backend.ops.log_mel_backward(
        torch.ones(1, 4, 1, dtype=torch.float64, device=backend.device), wave, window, filterbank, 16, 1e-7, "same"
    )
    assert grad.isfinite().all()


def test_what_is_not_finite_stays_visible(backend) -> None:
    wave, window, filterbank = inputs(backend.device, torch.float32, 2000, 96, 10)
    wave[0, 1000] = math.nan
    wave[1, 1000] = math.inf
    result = backend.ops.log_mel(wave, window, filterbank, 96, 1e-7, "same")
    assert not result[:, 10].isfinite().any()  # the frame that holds sample 1000
    assert result[:, 15:].isfinite().all()


def test_logarithm_is_exact_to_the_last_places(backend) -> None:
    """A frame of two equal samples v has the single magnitude 2 v."""
    values = torch.logspace(-36, 36, 1000, base=10.0)[:, None] * (1 + torch.rand(1000, 1))
    wave = (values / 2).expand(-1, 2).to(backend.device)
    filterbank = torch.tensor([[1.0], [0.0]], device=backend.device)
    window = torch.ones(2, device=backend.device)
    result = backend.ops.log_mel(wave[400:600], window, filterbank, 2, 1e-30, "same").flatten().cpu().double()
    expected = (2 * wave[400:600, 0].cpu().double()).log()
    assert ((result - expected).abs() <= 2e-7 * expected.abs().clamp(min=0.5)).all()


def test_nothing(backend) -> None:
    wave, window, filterbank = inputs(backend.device, torch.float32, 20, 48, 6)
    for empty, padding in ((wave[:0], "center"), (wave[:, :0], "same"), (wave[:, :5], "same")):
        result = backend.ops.log_mel(empty, window, filterbank, 24, 1e-7, padding)
        assert result.numel() == 0
        grad = backend.ops.log_mel_backward(result, empty, window, filterbank, 24, 1e-7, padding)
        torch.testing.assert_close(grad, torch.zeros_like(empty))


def test_non_contiguous_input(backend) -> None:
    wave, window, filterbank = inputs(backend.device, torch.float32, 300, 48, 6)
    strided = (wave.T.contiguous().T, window.repeat_interleave(2)[::2], filterbank.T.contiguous().T)
    result = backend.ops.log_mel(*strided, 24, 1e-7, "center")
    torch.testing.assert_close(
        result, backend.ops.log_mel(wave, window, filterbank, 24, 1e-7, "center"), rtol=0, atol=0
    )
    grad = torch.randn_like(result)
    torch.testing.assert_close(
        backend.ops.log_mel_backward(grad.mT.contiguous().mT, *strided, 24, 1e-7, "center"),
        backend.ops.log_mel_backward(grad, wave, window, filterbank, 24, 1e-7, "center"),
        rtol=0,
        atol=0,
    )


def test_opcheck() -> None:
    wave, window, filterbank = inputs("cpu", torch.float32, 100, 48, 6)
    for padding in ("center", "same"):
        arguments = (window, filterbank, 24, 1e-7, padding)
        torch.library.opcheck(torch.ops.mimo.log_mel.default, (wave.clone().requires_grad_(), *arguments))
        grad = torch.randn_like(mn.log_mel(wave, *arguments))
        torch.library.opcheck(torch.ops.mimo.log_mel_backward.default, (grad, wave, *arguments))


@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize("length", [9, 61])
def test_gradcheck(length, padding) -> None:
    wave, window, filterbank = inputs("cpu", torch.float64, length, 20, 4)
    filterbank = filterbank + 0.1
    assert torch.autograd.gradcheck(
        lambda x: mn.log_mel(x, window, filterbank, 7, 1e-7, padding), wave.requires_grad_()
    )


def test_compiles_into_one_graph() -> None:
    wave, window, filterbank = inputs("cpu", torch.float32, 500, 48, 6)
    wave.requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return mn.log_mel(x, window, filterbank, 24).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad(compiled(wave), wave)
    (expected,) = torch.autograd.grad(loss(wave), wave)
    torch.testing.assert_close(grad, expected)


def test_constants_must_not_require_grad() -> None:
    wave, window, filterbank = inputs("cpu", torch.float32, 100, 48, 6)
    with pytest.raises(RuntimeError, match="log_mel: window is a constant"):
        mn.log_mel(wave, window.clone().requires_grad_(), filterbank, 24)
    with pytest.raises(RuntimeError, match="log_mel: filterbank is a constant"):
        mn.log_mel(wave, window, filterbank.clone().requires_grad_(), 24)


X, W, M = torch.zeros(1, 50), torch.ones(16), torch.ones(9, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], W, M, 4, 1e-7, "same"), r"wave must be 2-D \[B, L\], got float32 \[50\]"),
        ((X.bfloat16(), W, M, 4, 1e-7, "same"), "wave must be float32 or float64, got bfloat16"),
        ((X, W, M.double(), 4, 1e-7, "same"), r"filterbank must have the dtype of wave \(float32\), got float64"),
        ((X, W, M[0], 4, 1e-7, "same"), r"filterbank must be 2-D \[n_fft / 2 \+ 1, n_mels\], got float32 \[3\]"),
        ((X, W, M[:, :0], 4, 1e-7, "same"), r"filterbank must have at least one column, got float32 \[9, 0\]"),
        ((X, W, torch.ones(8, 3), 4, 1e-7, "same"), r"n_fft = 2 \(filterbank's rows - 1\) must be an even .* got 14"),
        ((X, torch.ones(17), M, 4, 1e-7, "same"), "window must have 1 to n_fft = 16 samples"),
        ((X, W, M, 0, 1e-7, "same"), "hop must be 1 to 2147483647, got 0"),
        ((X, W, M, 4, 0.0, "same"), "floor must be a normal positive number .* got 0"),
        ((X, W, M, 4, 1e-40, "same"), "floor must be a normal positive number"),
        ((X, W, M, 4, math.nan, "same"), "floor must be a normal positive number .* got nan"),
        ((X, W, M, 4, 1e-7, "reflect"), 'padding must be "center" or "same", got "reflect"'),
        ((X[:, :0], W, M, 4, 1e-7, "center"), "wave must have at least one sample"),
    ],
)
def test_names_what_is_wrong(backend, arguments, message) -> None:
    with pytest.raises(RuntimeError, match=f"log_mel: .*{message}"):
        backend.ops.log_mel(*arguments)


def test_backward_names_what_is_wrong(backend) -> None:
    with pytest.raises(RuntimeError, match=r"log_mel_backward: grad must be \[1, 12, 3\], got float32 \[1, 11, 3\]"):
        backend.ops.log_mel_backward(torch.zeros(1, 11, 3), X, W, M, 4, 1e-7, "same")
