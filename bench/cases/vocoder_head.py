"""vocoder_head at the full tokenizer's size (n_fft 960, hop 240, 100 frames per second), inference and training.

A GPU also gets an hour of audio at once.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import reference, vocoder_head

N_FFT, HOP = 960, 240


def check_wave(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() <= 4e-6 * b.abs().max()  # both are float32


@torch.enable_grad()
def gradient(op: Callable[..., Tensor], x: Tensor, window: Tensor, bounds: Tensor, grad: Tensor) -> Tensor:
    """Forward and backward."""
    x = x.detach().requires_grad_()
    (result,) = torch.autograd.grad(op(x, window, HOP, bounds), x, grad)
    return result


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    del dtype  # the head is float32 by definition
    generator = torch.Generator().manual_seed(0)
    window = torch.hann_window(N_FFT, device=device)
    bins = N_FFT // 2 + 1

    def frames(count: int) -> Tensor:
        size, phase = torch.randn(2, count, bins, generator=generator)
        return torch.cat([size - 3, 6 * phase], 1).to(device)

    def packed(batch: int, count: int) -> tuple[Tensor, Tensor]:
        return frames(batch * count), torch.arange(0, batch * count + 1, count, dtype=torch.int32, device=device)

    hour = [(1, 3600)] if device == "cuda" else []
    for batch, seconds in ((1, 1), (1, 30), (1, 60), (8, 16), *hour):
        x, bounds = packed(batch, 100 * seconds)
        yield Case(
            name=f"vocoder_head/{f'{batch}x' if batch > 1 else ''}{seconds}s",
            native=lambda x=x, b=bounds: vocoder_head(x, window, HOP, b),
            reference=lambda x=x, b=bounds: reference.vocoder_head(x, window, HOP, b),
            check=check_wave,
            bytes=4.0 * len(x) * (N_FFT + 2 + HOP),
            target=2.0,
            cuda_seconds=2 * 1.1e-9 * len(x) if seconds == 3600 else None,
        )
    for batch, count in ((8, 128), (8, 1600)) if device == "cuda" else ((8, 128),):
        x, bounds = packed(batch, count)
        grad = torch.randn(len(x) * HOP, generator=generator).to(device)
        yield Case(
            name=f"vocoder_head/training_{batch}x{count / 100:g}s",
            native=lambda x=x, b=bounds, g=grad: gradient(vocoder_head, x, window, b, g),
            reference=lambda x=x, b=bounds, g=grad: gradient(reference.vocoder_head, x, window, b, g),
            check=check_wave,
            bytes=4.0 * len(x) * (3 * (N_FFT + 2) + 2 * HOP),  # x twice, its gradient; the wave and its gradient
            target=2.0,
        )
