"""stft and istft at the full tokenizer's size (n_fft 960, hop 240), 30 s of audio."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import istft, reference, stft

N_FFT, HOP = 960, 240


def check(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() <= 4e-6 * b.abs().max()  # both are float32


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    del dtype  # transforms are float32
    generator = torch.Generator().manual_seed(0)
    window = torch.hann_window(N_FFT, device=device)
    wave = torch.randn(1, 30 * 24000, generator=generator).to(device)
    spectrum = stft(wave, window, N_FFT, HOP, "same")
    moved = 4.0 * (wave.numel() + 2 * spectrum.numel())
    yield Case(
        name="stft/30s",
        native=lambda: stft(wave, window, N_FFT, HOP),
        reference=lambda: torch.stft(wave, N_FFT, HOP, N_FFT, window, return_complex=True).transpose(1, 2),
        check=check,
        bytes=moved,
    )
    yield Case(
        name="istft/30s",
        native=lambda: istft(spectrum, window, HOP),
        reference=lambda: reference.istft(spectrum, window, HOP),
        check=check,
        bytes=moved,
    )
