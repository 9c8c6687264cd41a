"""Short-time Fourier transform and its inverse (MiMo-Audio report, section 2.1: log-mel input, vocoder, mel loss)."""

import torch
from torch import Tensor

from mimo_audio_native.ops.constants import require_constant
from mimo_audio_native.ops.register import (
    float32_under_autocast,
    over_leading,
    refuse_forward_mode,
    refuse_second_derivative,
    register_fake,
)
from mimo_audio_native.reference.stft import frame_count


@refuse_forward_mode
def stft(wave: Tensor, window: Tensor, n_fft: int, hop: int, padding: str = "center") -> Tensor:
    """Spectrum of overlapping frames.

    Args:
        wave: [..., L] samples, float32 or float64.
        window: [W], W <= n_fft, zero-padded around its centre to n_fft; a constant: it must not require grad.
        n_fft: even, at most 8192, no prime factors other than 2, 3 and 5.
        hop: samples from frame to frame.
        padding: "center" reflects n_fft // 2 samples at both ends: T = 1 + L // hop. "same" reflects (n_fft - hop) / 2:
            T = L // hop. Signals shorter than the padding are folded as often as it takes.

    Returns:
        [..., T, n_fft // 2 + 1] complex64 or complex128. Differentiable once with respect to wave.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or sizes; "center" with an empty wave; a window that requires grad.

    Equivalent to ``torch.fft.rfft(F.pad(wave, ..., mode="reflect").unfold(-1, n_fft, hop) * window)``.
    """
    return torch.view_as_complex(
        over_leading(lambda rows: torch.ops.mimo.stft(rows, window, n_fft, hop, padding), wave)
    )


@refuse_forward_mode
def istft(spectrum: Tensor, window: Tensor, hop: int) -> Tensor:
    """Inverse of `stft` with padding "same": windowed overlap-add divided by the overlap-added squared window.

    Args:
        spectrum: [B, T, n_fft / 2 + 1] complex64 or complex128; n_fft as for `stft`.
        window: [n_fft] float32 or float64; a constant: it must not require grad.
        hop: samples from frame to frame, at most n_fft.

    Returns:
        [B, T * hop] samples: (n_fft - hop) / 2 are trimmed at both ends. Differentiable once with respect to spectrum.

    Raises:
        TypeError: spectrum is not complex.
        RuntimeError: wrong shapes, dtypes, devices or sizes; a window that requires grad.

    Equivalent to ``F.fold`` of ``torch.fft.irfft(spectrum) * window``, divided by ``F.fold`` of ``window ** 2``, and
    trimmed.
    """
    if not spectrum.is_complex():
        raise TypeError(f"istft: spectrum must be complex64 or complex128, got {spectrum.dtype}")
    return torch.ops.mimo.istft(torch.view_as_real(spectrum.resolve_conj()), window, hop)


@register_fake("mimo::stft")
def _(wave: Tensor, window: Tensor, n_fft: int, hop: int, padding: str = "center") -> Tensor:
    return wave.new_empty((wave.shape[0], frame_count(wave.shape[1], n_fft, hop, padding), n_fft // 2 + 1, 2))


@register_fake("mimo::stft_backward")
def _(grad: Tensor, window: Tensor, n_fft: int, hop: int, padding: str, length: int) -> Tensor:
    return grad.new_empty((grad.shape[0], length))


@register_fake("mimo::istft")
def _(spectrum: Tensor, window: Tensor, hop: int) -> Tensor:
    return spectrum.new_empty((spectrum.shape[0], spectrum.shape[1] * hop))


@register_fake("mimo::istft_backward")
def _(grad: Tensor, window: Tensor, hop: int) -> Tensor:
    return grad.new_empty((grad.shape[0], grad.shape[1] // hop, window.shape[0] // 2 + 1, 2))


def _stft_setup(ctx, inputs, output) -> None:
    wave, window, *ctx.settings = inputs
    require_constant("stft", window, "window")
    ctx.save_for_backward(window)
    ctx.length = wave.shape[1]


def _stft_backward(ctx, grad: Tensor):
    (window,) = ctx.saved_tensors
    return torch.ops.mimo.stft_backward(grad, window, *ctx.settings, ctx.length), None, None, None, None


def _istft_setup(ctx, inputs, output) -> None:
    _, window, ctx.hop = inputs
    require_constant("istft", window, "window")
    ctx.save_for_backward(window)


def _istft_backward(ctx, grad: Tensor):
    (window,) = ctx.saved_tensors
    return torch.ops.mimo.istft_backward(grad, window, ctx.hop), None, None


torch.library.register_autograd("mimo::stft", _stft_backward, setup_context=_stft_setup)
refuse_second_derivative("mimo::stft_backward")
torch.library.register_autograd("mimo::istft", _istft_backward, setup_context=_istft_setup)
refuse_second_derivative("mimo::istft_backward")
float32_under_autocast("mimo::stft", "mimo::stft_backward", "mimo::istft", "mimo::istft_backward")
