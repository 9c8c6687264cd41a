"""Log-mel spectrogram (MiMo-Audio report, section 2.1: the tokenizer's input and its reconstruction loss)."""

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
def log_mel(
    wave: Tensor, window: Tensor, filterbank: Tensor, hop: int, floor: float = 1e-7, padding: str = "center"
) -> Tensor:
    """Natural logarithm of the mel-weighted magnitude spectrum, at least log(floor).

    Args:
        wave: [..., L] samples, float32 or float64.
        window: [W], W <= n_fft, zero-padded around its centre to n_fft; a constant: it must not require grad.
        filterbank: [n_fft / 2 + 1, n_mels] (`mel_filterbank`), which sets n_fft: at most 8192, no prime factors other
            than 2, 3 and 5; a constant. Fast where a column's non-zeros are neighbours, right for any matrix.
        hop: samples from frame to frame.
        floor: smallest mel value, a normal positive number.
        padding: "center" (T = 1 + L // hop) or "same" (T = L // hop), as in `stft`.

    Returns:
        [..., T, n_mels]. Differentiable once with respect to wave; the gradient is 0 below the floor and at
        magnitude 0.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or sizes; a window or filterbank that requires grad.

    Equivalent to ``(stft(wave, window, n_fft, hop, padding).abs() @ filterbank).clamp(min=floor).log()``.
    """
    return over_leading(lambda rows: torch.ops.mimo.log_mel(rows, window, filterbank, hop, floor, padding), wave)


@register_fake("mimo::log_mel")
def _(
    wave: Tensor, window: Tensor, filterbank: Tensor, hop: int, floor: float = 1e-7, padding: str = "center"
) -> Tensor:
    n_fft = 2 * (filterbank.shape[0] - 1)
    return wave.new_empty((wave.shape[0], frame_count(wave.shape[1], n_fft, hop, padding), filterbank.shape[1]))


@register_fake("mimo::log_mel_backward")
def _(grad: Tensor, wave: Tensor, window: Tensor, filterbank: Tensor, hop: int, floor: float, padding: str) -> Tensor:
    return torch.empty_like(wave, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output) -> None:
    wave, window, filterbank, *ctx.settings = inputs
    require_constant("log_mel", window, "window")
    require_constant("log_mel", filterbank, "filterbank")
    ctx.save_for_backward(wave, window, filterbank)


def _backward(ctx, grad: Tensor):
    wave, window, filterbank = ctx.saved_tensors
    wave_grad = torch.ops.mimo.log_mel_backward(grad, wave, window, filterbank, *ctx.settings)
    return wave_grad, None, None, None, None, None


torch.library.register_autograd("mimo::log_mel", _backward, setup_context=_setup)
refuse_second_derivative("mimo::log_mel_backward")
float32_under_autocast("mimo::log_mel", "mimo::log_mel_backward")
