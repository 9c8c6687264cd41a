"""log_mel at the full tokenizer's size (24 kHz, n_fft 960, hop 240, 128 mels), and training's multi-scale mel loss.

A GPU also gets an hour of audio at once.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import log_mel, mel_filterbank, reference

N_FFT, HOP, MELS = 960, 240, 128


def published(wave: Tensor, window: Tensor, filterbank: Tensor) -> Tensor:
    spectrum = torch.stft(wave, N_FFT, HOP, N_FFT, window, center=True, return_complex=True).abs()
    return (spectrum.transpose(1, 2) @ filterbank).clamp(min=1e-7).log()


def check_mel(a: Tensor, b: Tensor) -> None:
    assert ((a.exp() - b.exp()).abs() <= 2e-6 * b.exp().amax(-1, keepdim=True)).all()


Scale = tuple[Tensor, Tensor, int]  # window, filterbank, hop


def mel_scales(device: str) -> list[Scale]:
    """Those of the tokenizer's multi-scale mel loss: 2^i bands, window 15 * 2^(i-1), hop 15 * 2^(i-2), longer FFTs."""
    return [
        (
            torch.hann_window(15 * 2 ** (i - 1), device=device),
            mel_filterbank(24000, 2 ** (i + 4), 2**i).to(device),
            15 * 2 ** (i - 2),
        )
        for i in (5, 6, 7)
    ]


@torch.enable_grad()
def mel_gradient(op: Callable[..., Tensor], wave: Tensor, scales: list[Scale], grads: list[Tensor]) -> Tensor:
    """Forward and backward of the log-mels of all scales."""
    wave = wave.detach().requires_grad_()
    mels = [op(wave, window, filters, hop, 1e-5, "same") for window, filters, hop in scales]
    (grad,) = torch.autograd.grad(mels, wave, grads)
    return grad


def check_gradient(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() <= 1e-3 * b.abs().max()  # both divide by small magnitudes


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    del dtype  # log_mel is float32 by definition
    generator = torch.Generator().manual_seed(0)
    window = torch.hann_window(N_FFT, device=device)
    filterbank = mel_filterbank(24000, N_FFT, MELS).to(device)
    for seconds in (1, 30, 60, 3600) if device == "cuda" else (1, 30, 60):
        wave = torch.randn(1, 24000 * seconds, generator=generator).to(device)
        yield Case(
            name=f"log_mel/{seconds}s",
            native=lambda wave=wave: log_mel(wave, window, filterbank, HOP),
            reference=lambda wave=wave: published(wave, window, filterbank),
            check=check_mel,
            bytes=4.0 * 24000 * seconds * (1 + MELS / HOP),
            target=3.0,
            cuda_target=5.0,
            cuda_seconds=0.5e-3 if seconds == 3600 else None,
        )
    scales = mel_scales(device)
    for batch, seconds in ((8, 1.28), (64, 2.56)) if device == "cuda" else ((8, 1.28),):
        wave = (0.1 * torch.randn(batch, round(24000 * seconds), generator=generator)).to(device)
        grads = [torch.randn_like(log_mel(wave, window, filters, hop, 1e-5, "same")) for window, filters, hop in scales]
        yield Case(
            name=f"log_mel/loss_{batch}x{seconds}s",
            native=lambda w=wave, g=grads: mel_gradient(log_mel, w, scales, g),
            reference=lambda w=wave, g=grads: mel_gradient(reference.log_mel, w, scales, g),
            check=check_gradient,
            bytes=4.0 * sum(3 * wave.numel() + 2 * grad.numel() for grad in grads),  # the wave twice, its gradient
            target=3.0,
        )
