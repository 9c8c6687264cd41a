"""stft and istft at the full tokenizer's size (n_fft 960, hop 240), 30 s of audio."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import istft, reference, stft

N_FFT, HOP = 960, 240


def check(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() <= 4e-6 * b.abs().max()  # both are float32


@torch.enable_grad()
def gradient(op: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Tensor:
    """Forward and backward."""
    x = x.detach().requires_grad_()
    (result,) = torch.autograd.grad(op(x), x, grad)
    return result


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    del dtype  # transforms are float32
    generator = torch.Generator().manual_seed(0)
    window = torch.hann_window(N_FFT, device=device)
    wave = torch.randn(1, 30 * 24000, generator=generator).to(device)
    spectrum = stft(wave, window, N_FFT, HOP, "same")
    moved = 4.0 * (wave.numel() + 2 * spectrum.numel())
    pairs: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor, Tensor]] = {
        "stft": (
            lambda x: stft(x, window, N_FFT, HOP),
            lambda x: torch.stft(x, N_FFT, HOP, N_FFT, window, return_complex=True).transpose(1, 2),
            wave,
            torch.randn(1, wave.shape[1] // HOP + 1, N_FFT // 2 + 1, dtype=torch.complex64, generator=generator),
        ),
        "istft": (
            lambda x: istft(x, window, HOP),
            lambda x: reference.istft(x, window, HOP),
            spectrum,
            torch.randn(wave.shape, generator=generator),
        ),
    }
    for name, (op, plain, x, grad) in pairs.items():
        grad = grad.to(device)
        yield Case(
            name=f"{name}/30s",
            native=lambda op=op, x=x: op(x),
            reference=lambda plain=plain, x=x: plain(x),
            check=check,
            bytes=moved,
        )
        yield Case(
            name=f"{name}/training_30s",
            native=lambda op=op, x=x, g=grad: gradient(op, x, g),
            reference=lambda plain=plain, x=x, g=grad: gradient(plain, x, g),
            check=check,
            bytes=2 * moved,
        )
