"""log_mel at the full tokenizer's size (24 kHz, n_fft 960, hop 240, 128 mels), and training's multi-scale mel loss."""

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


@torch.enable_grad()
def mel_loss(op: Callable[..., Tensor], wave: Tensor, scales: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Forward and backward of mel distances at several scales; the gradient."""
    wave = wave.detach().requires_grad_()
    terms = [op(wave, window, filters, len(window) // 2, 1e-5, "same").abs().mean() for window, filters in scales]
    (grad,) = torch.autograd.grad(sum(terms, torch.zeros((), device=wave.device)), wave)
    return grad


def check_gradient(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() <= 1e-3 * b.abs().max()  # both divide by small magnitudes


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    del dtype  # log_mel is float32 by definition
    generator = torch.Generator().manual_seed(0)
    window = torch.hann_window(N_FFT, device=device)
    filterbank = mel_filterbank(24000, N_FFT, MELS).to(device)
    for seconds in (1, 30, 60):
        wave = torch.randn(1, 24000 * seconds, generator=generator).to(device)
        yield Case(
            name=f"log_mel/{seconds}s",
            native=lambda wave=wave: log_mel(wave, window, filterbank, HOP),
            reference=lambda wave=wave: published(wave, window, filterbank),
            check=check_mel,
            bytes=4.0 * 24000 * seconds * (1 + MELS / HOP),
            target=3.0,
        )
    batch = (0.1 * torch.randn(8, 30720, generator=generator)).to(device)
    scales = [
        (torch.hann_window(n, device=device), mel_filterbank(24000, n, n // 12).to(device)) for n in (240, 480, 960)
    ]
    yield Case(
        name="log_mel/loss_8x1.28s",
        native=lambda: mel_loss(log_mel, batch, scales),
        reference=lambda: mel_loss(reference.log_mel, batch, scales),
        check=check_gradient,
        bytes=3 * 3 * 4.0 * batch.numel(),
        target=3.0,
    )
