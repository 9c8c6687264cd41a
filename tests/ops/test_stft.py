"""stft and istft against their definitions, on every backend, with gradients, fakes and bad input."""

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-14}  # of the largest value
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def assert_near(result: Tensor, expected: Tensor, tolerance: float) -> None:
    assert result.shape == expected.shape
    assert result.dtype == expected.dtype
    if expected.numel():
        assert (result - expected).abs().max() <= tolerance * expected.abs().max()


def gradient(f, x: Tensor, grad: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (result,) = torch.autograd.grad(f(x), x, grad)
    return result


# n_fft, window length, hop, signal length: every factor, odd hops, gaps between frames, signals shorter than padding.
SHAPES = [
    (2, 2, 1, 5),
    (6, 5, 2, 40),
    (10, 10, 5, 33),
    (16, 13, 4, 5),
    (16, 16, 21, 100),
    (16, 16, 40, 15),
    (30, 20, 7, 200),
    (96, 96, 24, 1),
    (240, 240, 60, 1000),
    (960, 960, 240, 1300),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize(("n_fft", "width", "hop", "length"), SHAPES)
def test_stft_equals_the_definition(backend, n_fft, width, hop, length, padding, dtype) -> None:
    wave = torch.randn(2, length, dtype=dtype, device=backend.device)
    window = torch.rand(width, dtype=dtype, device=backend.device) + 0.1
    expected = reference.stft(wave, window, n_fft, hop, padding)
    result = torch.view_as_complex(backend.ops.stft(wave, window, n_fft, hop, padding))
    assert_near(result, expected, TOLERANCE[dtype])

    grad = torch.randn_like(expected)
    if len(grad[0]):
        expected = gradient(lambda x: reference.stft(x, window, n_fft, hop, padding), wave, grad)
        result = backend.ops.stft_backward(torch.view_as_real(grad), window, n_fft, hop, padding, length)
        assert_near(result, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n_fft", "hop", "frames"), [(2, 1, 5), (6, 3, 9), (16, 4, 1), (30, 7, 40), (90, 90, 3), (960, 240, 7)]
)
def test_istft_equals_the_definition(backend, n_fft, hop, frames, dtype) -> None:
    spectrum = torch.randn(2, frames, n_fft // 2 + 1, dtype=COMPLEX[dtype], device=backend.device)
    window = torch.rand(n_fft, dtype=dtype, device=backend.device) + 0.1
    expected = reference.istft(spectrum, window, hop)
    assert_near(backend.ops.istft(torch.view_as_real(spectrum), window, hop), expected, TOLERANCE[dtype])

    grad = torch.randn_like(expected)
    expected = gradient(lambda x: reference.istft(x, window, hop), spectrum, grad)
    result = torch.view_as_complex(backend.ops.istft_backward(grad, window, hop))
    assert_near(result, expected, TOLERANCE[dtype])


def test_istft_undoes_stft() -> None:
    wave, window = torch.randn(3, 60 * 240), torch.hann_window(960)
    assert_near(mn.istft(mn.stft(wave, window, 960, 240, "same"), window, 240), wave, 1e-5)


def test_one_frame_does_not_depend_on_the_others() -> None:
    """Lanes, groups and threads never mix: a long signal's frames are bit-equal to those of its pieces."""
    wave, window = torch.randn(1, 200 * 48), torch.rand(96)
    whole = mn.stft(wave, window, 96, 48, "same")
    for first in (1, 17, 100):
        piece = mn.stft(wave[:, first * 48 - 24 : first * 48 + 72], window, 96, 96, "same")
        torch.testing.assert_close(piece[0, 0], whole[0, first], rtol=0, atol=0)


def test_the_number_of_threads_does_not_change_a_bit(by_threads) -> None:
    spectrum = torch.randn(1, 700, 49, dtype=torch.complex64)
    window = torch.rand(96) + 0.1
    first, *others = by_threads(lambda: mn.istft(spectrum, window, 24))
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("batch", "length", "padding"), [(0, 100, "center"), (2, 0, "same"), (2, 7, "same"), (0, 0, "same")]
)
def test_stft_of_nothing(backend, batch, length, padding) -> None:
    wave, window = torch.randn(batch, length, device=backend.device), torch.ones(16, device=backend.device)
    frames = 13 if padding == "center" else 0
    result = backend.ops.stft(wave, window, 16, 8, padding)
    assert result.shape == (batch, frames, 9, 2)
    grad = backend.ops.stft_backward(result, window, 16, 8, padding, length)
    torch.testing.assert_close(grad, torch.zeros_like(wave))


@pytest.mark.parametrize(("batch", "frames"), [(0, 3), (2, 0)])
def test_istft_of_nothing(backend, batch, frames) -> None:
    window = torch.ones(16, device=backend.device)
    result = backend.ops.istft(torch.zeros(batch, frames, 9, 2, device=backend.device), window, 8)
    assert result.shape == (batch, frames * 8)
    assert backend.ops.istft_backward(result, window, 8).shape == (batch, frames, 9, 2)


def test_non_contiguous_input(backend) -> None:
    wave = torch.randn(300, 2, device=backend.device).T
    window = (torch.rand(32, device=backend.device) + 0.1)[::2]
    spectrum = backend.ops.stft(wave, window, 16, 4, "same")
    dense = backend.ops.stft(wave.contiguous(), window.contiguous(), 16, 4, "same")
    torch.testing.assert_close(spectrum, dense, rtol=0, atol=0)
    strided = spectrum.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(
        backend.ops.istft(strided, window, 4), backend.ops.istft(dense, window.contiguous(), 4), rtol=0, atol=0
    )


def test_conjugated_spectrum() -> None:
    spectrum, window = torch.randn(1, 4, 9, dtype=torch.complex64), torch.rand(16) + 0.1
    dense = spectrum.conj().resolve_conj()
    torch.testing.assert_close(mn.istft(spectrum.conj(), window, 4), mn.istft(dense, window, 4))


def test_opcheck() -> None:
    wave, window = torch.randn(2, 50, requires_grad=True), torch.rand(16) + 0.1
    spectrum = torch.randn(2, 5, 9, 2, requires_grad=True)
    ops = torch.ops.mimo
    for padding in ("center", "same"):
        torch.library.opcheck(ops.stft.default, (wave, window, 16, 4, padding))
    torch.library.opcheck(ops.istft.default, (spectrum, window, 4))
    torch.library.opcheck(ops.stft_backward.default, (torch.randn(2, 12, 9, 2), window, 16, 4, "same", 50))
    torch.library.opcheck(ops.istft_backward.default, (torch.randn(2, 20), window, 4))


@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize("length", [5, 33])
def test_stft_gradcheck(length, padding) -> None:
    wave = torch.randn(2, length, dtype=torch.float64, requires_grad=True)
    window = torch.rand(11, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: mn.stft(x, window, 12, 5, padding), wave)


def test_istft_gradcheck() -> None:
    spectrum = torch.randn(2, 4, 7, dtype=torch.complex128, requires_grad=True)
    window = torch.rand(12, dtype=torch.float64) + 0.1
    assert torch.autograd.gradcheck(lambda x: mn.istft(x, window, 5), spectrum)


def test_compiles_into_one_graph() -> None:
    wave, window = torch.randn(2, 64, requires_grad=True), torch.rand(16) + 0.1

    def loss(x: Tensor) -> Tensor:
        return mn.istft(mn.stft(x, window, 16, 4, "same") * 2, window, 4).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad(compiled(wave), wave)
    (expected,) = torch.autograd.grad(loss(wave), wave)
    torch.testing.assert_close(grad, expected)


def test_constants_must_not_require_grad() -> None:
    wave, window = torch.randn(1, 64), torch.rand(16).requires_grad_()
    with pytest.raises(RuntimeError, match="stft: window is a constant"):
        mn.stft(wave, window, 16, 4)
    with pytest.raises(RuntimeError, match="istft: window is a constant"):
        mn.istft(torch.zeros(1, 2, 9, dtype=torch.complex64), window, 4)


W = torch.ones(16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(5), W, 16, 4, "same"), r"wave must be 2-D \[B, L\], got float32 \[5\]"),
        ((torch.zeros(1, 5).half(), W, 16, 4, "same"), "wave must be float32 or float64, got float16"),
        ((torch.zeros(1, 5), W.double(), 16, 4, "same"), r"window must have the dtype of wave \(float32\), got"),
        ((torch.zeros(1, 5), W[None], 16, 4, "same"), r"window must be 1-D \[W\], got float32 \[1, 16\]"),
        ((torch.zeros(1, 5), W, 14, 4, "same"), "n_fft must be an even number .* got 14"),
        ((torch.zeros(1, 5), W, 45, 4, "same"), "n_fft must be an even number .* got 45"),
        ((torch.zeros(1, 5), W, 16384, 4, "same"), "n_fft must be an even number from 2 to 8192 .* got 16384"),
        ((torch.zeros(1, 5), W, 12, 4, "same"), r"window must have 1 to n_fft = 12 samples, got float32 \[16\]"),
        ((torch.zeros(1, 5), W[:0], 12, 4, "same"), "window must have 1 to n_fft = 12 samples"),
        ((torch.zeros(1, 5), W, 16, 0, "same"), "hop must be 1 to 2147483647, got 0"),
        ((torch.zeros(1, 5), W, 16, 2**40, "same"), "hop must be 1 to 2147483647, got 1099511627776"),
        ((None, W, 16, 4, "same"), "wave must be .* got None"),
        ((torch.zeros(1, 5), None, 16, 4, "same"), "window must .* got None"),
        ((torch.zeros(1, 5), W, 16, 4, "valid"), 'padding must be "center" or "same", got "valid"'),
        ((torch.zeros(1, 0), W, 16, 4, "center"), 'at least one sample for padding "center", got length 0'),
    ],
)
def test_stft_names_what_is_wrong(backend, arguments, message) -> None:
    with pytest.raises(RuntimeError, match=f"stft: .*{message}"):
        backend.ops.stft(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(1, 3, 9), W, 4), r"spectrum must be 4-D .* got float32 \[1, 3, 9\]"),
        ((torch.zeros(1, 3, 9, 3), W, 4), "spectrum must end in 2"),
        ((torch.zeros(1, 3, 8, 2), torch.ones(14), 4), "n_fft = 2 .* must be an even number .* got 14"),
        ((torch.zeros(1, 3, 0, 2), W, 4), "n_fft = 2 .* must be an even number .* got -2"),
        ((torch.zeros(1, 3, 9, 2), W[:12], 4), r"window must have n_fft = 16 samples, got float32 \[12\]"),
        ((torch.zeros(1, 3, 9, 2), W, 17), "hop must be 1 to n_fft = 16, got 17"),
        ((torch.zeros(1, 3, 9, 2), W, 0), "hop must be 1 to n_fft = 16, got 0"),
    ],
)
def test_istft_names_what_is_wrong(backend, arguments, message) -> None:
    with pytest.raises(RuntimeError, match=f"istft: .*{message}"):
        backend.ops.istft(*arguments)


def test_backwards_name_what_is_wrong(backend) -> None:
    with pytest.raises(RuntimeError, match=r"stft_backward: grad must be \[B, 5, 9, 2\], got float32 \[1, 4, 9, 2\]"):
        backend.ops.stft_backward(torch.zeros(1, 4, 9, 2), W, 16, 4, "same", 20)
    with pytest.raises(RuntimeError, match="stft_backward: length must not be negative, got -1"):
        backend.ops.stft_backward(torch.zeros(1, 4, 9, 2), W, 16, 4, "same", -1)
    with pytest.raises(RuntimeError, match="istft_backward: grad's length must be a multiple of hop = 4"):
        backend.ops.istft_backward(torch.zeros(1, 21), W, 4)


def test_istft_wants_a_complex_spectrum() -> None:
    with pytest.raises(TypeError, match=r"spectrum must be complex64 or complex128, got torch\.float32"):
        mn.istft(torch.zeros(1, 3, 9), W, 4)
