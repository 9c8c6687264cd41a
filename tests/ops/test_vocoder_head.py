"""vocoder_head against its definition, on every backend, with gradients, fakes and bad input."""

import math

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}  # of the largest value


def frames(count: int, n_fft: int, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    bins = n_fft // 2 + 1
    x = torch.cat([torch.randn(count, bins), 10 * torch.randn(count, bins)], 1)
    return x.to(device, dtype)


def assert_near(result: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert result.dtype == dtype
    assert result.shape == expected.shape
    if expected.numel():
        assert (result - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n_fft", "hop", "bounds"),
    [
        (960, 240, [0, 11]),
        (960, 240, [0, 0, 1, 4, 11, 11]),
        (960, 240, [0, 29, 36]),
        (960, 239, [0, 9]),
        (96, 24, [0, 60, 61, 63, 120]),
        (48, 48, [0, 3, 7]),
        (30, 7, [0, 2, 19]),
        (2, 1, [0, 5]),
    ],
)
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_equals_the_definition(backend, n_fft, hop, bounds, dtype, index) -> None:
    x = frames(bounds[-1], n_fft, dtype, backend.device)
    window = torch.rand(n_fft, dtype=dtype, device=backend.device) + 0.1
    cu_seqlens = torch.tensor(bounds, dtype=index, device=backend.device)
    wide = x.double().requires_grad_()
    expected = reference.vocoder_head(wide, window.double(), hop, cu_seqlens, 2.0)  # clips a quarter
    assert_near(backend.ops.vocoder_head(x, window, hop, cu_seqlens, 2.0), expected, dtype)

    grad = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, wide, grad)
    assert_near(backend.ops.vocoder_head_backward(grad.to(dtype), x, window, hop, cu_seqlens, 2.0), wanted, dtype)


def test_a_wave_of_the_models_size_is_right_to_2e_6() -> None:
    """Unit-scale speech-like frames of the full model: the bound is absolute."""
    window = torch.hann_window(960)
    wave = torch.randn(1, 24000) / 3
    spectrum = mn.stft(wave, window, 960, 240, "same")[0]
    x = torch.cat([spectrum.abs().log(), spectrum.angle()], 1)
    expected = reference.vocoder_head(x.double(), window.double(), 240)
    assert (mn.vocoder_head(x, window, 240) - expected).abs().max() < 2e-6


def test_packed_sequences_equal_single_ones() -> None:
    window, x = torch.hann_window(96), frames(150, 96, torch.float32)
    packed = mn.vocoder_head(x, window, 24, torch.tensor([0, 100, 103, 150]))
    single = [mn.vocoder_head(piece, window, 24) for piece in (x[:100], x[100:103], x[103:])]
    torch.testing.assert_close(packed, torch.cat(single), rtol=0, atol=0)


def test_magnitude_and_phase_are_exact_to_the_last_places(backend) -> None:
    """One bin of n_fft = 4 without overlap shows e^a cos p and e^a sin p themselves."""
    scales = [math.pi, 100.0, 8191.0, 1e5, 1e7, 1e20]
    phase = torch.cat([(2 * torch.rand(64) - 1) * scale for scale in scales])
    phase = torch.cat([phase, torch.tensor([0.0, -0.0, math.pi / 2, 8192.0, -8192.0])])
    magnitude = 20 * torch.rand(len(phase)) - 16
    x = torch.full((len(phase), 6), -200.0)  # the other bins are silent
    x[:, 1], x[:, 4] = magnitude, phase
    x[:, 3], x[:, 5] = 0, 0
    wave = (
        backend.ops.vocoder_head(x.to(backend.device), torch.ones(4, device=backend.device), 4, None, 1e6)
        .cpu()
        .double()
    )
    size = magnitude.double().exp()
    expected = torch.stack([size * phase.double().cos() / 2, -size * phase.double().sin() / 2], 1)
    assert ((wave.view(-1, 4)[:, :2] - expected).abs() <= 2.5e-7 * size[:, None]).all()


def test_clipped_magnitudes_get_no_gradient(backend) -> None:
    x = frames(5, 16, torch.float32, backend.device)
    x[:, 3], x[:, 4] = 10, 1000  # e^1000 is infinite in float32
    window = torch.ones(16, device=backend.device)
    wave = backend.ops.vocoder_head(x, window, 4, None, 100.0)
    assert wave.isfinite().all()
    grad = backend.ops.vocoder_head_backward(torch.randn_like(wave), x, window, 4, None, 100.0)
    assert (grad[:, 3:5] == 0).all()
    assert (grad[:, 9 + 3 : 9 + 5] != 0).all()  # their phases do
    assert grad.isfinite().all()


def test_what_is_not_finite_stays_visible(backend) -> None:
    x = frames(40, 16, torch.float32, backend.device)
    x[10, 2], x[20, 12] = math.nan, math.inf
    wave = backend.ops.vocoder_head(x, torch.ones(16, device=backend.device), 4, None, 100.0)
    assert wave[40:44].isnan().all()
    assert wave[80:84].isnan().all()
    assert wave[120:].isfinite().all()


def test_nothing(backend) -> None:
    window = torch.ones(16, device=backend.device)
    x = torch.zeros(0, 18, device=backend.device)
    for bounds in (None, torch.zeros(1, dtype=torch.int32), torch.zeros(3, dtype=torch.int64)):
        bounds = bounds if bounds is None else bounds.to(backend.device)
        wave = backend.ops.vocoder_head(x, window, 4, bounds, 100.0)
        assert wave.shape == (0,)
        assert backend.ops.vocoder_head_backward(wave, x, window, 4, bounds, 100.0).shape == (0, 18)


def test_non_contiguous_input(backend) -> None:
    x = frames(9, 16, torch.float32, backend.device)
    window = torch.rand(16, device=backend.device) + 0.1
    bounds = torch.tensor([0, 0, 4, 4, 9, 9], device=backend.device)
    strided = (x.T.contiguous().T, window.repeat_interleave(2)[::2], 4, bounds[::2], 100.0)
    dense = (x, window, 4, bounds[::2].contiguous(), 100.0)
    wave = backend.ops.vocoder_head(*dense)
    torch.testing.assert_close(backend.ops.vocoder_head(*strided), wave, rtol=0, atol=0)
    grad = torch.randn(2 * len(wave), device=backend.device)[::2]
    torch.testing.assert_close(
        backend.ops.vocoder_head_backward(grad, *strided),
        backend.ops.vocoder_head_backward(grad.contiguous(), *dense),
        rtol=0,
        atol=0,
    )


def test_opcheck() -> None:
    x, window = frames(6, 16, torch.float32), torch.rand(16) + 0.1
    for bounds in (None, torch.tensor([0, 2, 6])):
        torch.library.opcheck(
            torch.ops.mimo.vocoder_head.default, (x.clone().requires_grad_(), window, 4, bounds, 100.0)
        )
        torch.library.opcheck(
            torch.ops.mimo.vocoder_head_backward.default, (torch.randn(24), x, window, 4, bounds, 100.0)
        )


def test_gradcheck() -> None:
    x, window = frames(6, 12, torch.float64).requires_grad_(), torch.rand(12, dtype=torch.float64) + 0.1
    bounds = torch.tensor([0, 2, 6], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda x: mn.vocoder_head(x, window, 5, bounds, 2.0), x)


def test_compiles_into_one_graph() -> None:
    x, window, bounds = frames(6, 16, torch.float32).requires_grad_(), torch.rand(16) + 0.1, torch.tensor([0, 2, 6])

    def loss(x: Tensor) -> Tensor:
        return mn.vocoder_head(x, window, 4, bounds).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad(compiled(x), x)
    (expected,) = torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(grad, expected)


def test_the_window_must_not_require_grad() -> None:
    with pytest.raises(RuntimeError, match="vocoder_head: window is a constant"):
        mn.vocoder_head(torch.zeros(3, 18), torch.ones(16, requires_grad=True), 4)


X, W = torch.zeros(5, 18), torch.ones(16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], W, 4, None, 1.0), r"x must be 2-D \[T, n_fft \+ 2\], got float32 \[18\]"),
        ((X.half(), W.half(), 4, None, 1.0), "x must be float32 or float64, got float16"),
        ((X, W.double(), 4, None, 1.0), r"window must have the dtype of x \(float32\), got float64"),
        ((X[:, :16], W, 4, None, 1.0), "n_fft = x's columns - 2 must be an even number .* got 14"),
        ((X, W[:12], 4, None, 1.0), r"window must have n_fft = 16 samples, got float32 \[12\]"),
        ((X, W, 20, None, 1.0), "hop must be 1 to n_fft = 16, got 20"),
        ((X, W, 4, None, 0.0), "max_magnitude must be positive and finite, got 0"),
        ((X, W, 4, None, math.inf), "max_magnitude must be positive and finite, got inf"),
        ((X, W, 4, torch.tensor([[0, 5]]), 1.0), r"cu_seqlens must be 1-D \[B \+ 1\], got int64 \[1, 2\]"),
        ((X, W, 4, torch.tensor([0.0, 5.0]), 1.0), "cu_seqlens must be int32 or int64, got float32"),
        ((X, W, 4, torch.zeros(0, dtype=torch.int32), 1.0), "cu_seqlens must have at least one entry"),
        ((X, W, 4, torch.tensor([1, 5]), 1.0), "cu_seqlens must start at 0, got 1"),
        ((X, W, 4, torch.tensor([0, 4, 3, 5]), 1.0), "cu_seqlens must never decrease, got 4 then 3 at 2"),
        ((X, W, 4, torch.tensor([0, 4]), 1.0), "cu_seqlens must end at T = 5, got 4"),
        ((X, W, 4, torch.tensor([0]), 1.0), "cu_seqlens must end at T = 5, got 0"),
    ],
)
def test_names_what_is_wrong(backend, arguments, message) -> None:
    with pytest.raises(RuntimeError, match=f"vocoder_head: .*{message}"):
        backend.ops.vocoder_head(*arguments)


def test_backward_names_what_is_wrong(backend) -> None:
    with pytest.raises(RuntimeError, match=r"vocoder_head_backward: grad must be \[20\], got float32 \[21\]"):
        backend.ops.vocoder_head_backward(torch.zeros(21), X, W, 4, None, 1.0)
