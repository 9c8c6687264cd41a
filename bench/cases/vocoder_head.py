"""vocoder_head at the full tokenizer's size (n_fft 960, hop 240, 100 frames per second), inference and training."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import reference, vocoder_head

N_FFT, HOP = 960, 240


def check_wave(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() <= 4e-6 * b.abs().max()  # both are float32


@torch.enable_grad()
def gradient(op: Callable[..., Tensor], x: Tensor, window: Tensor, bounds: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(op(x, window, HOP, bounds).square().sum(), x)
    return grad


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    del dtype  # the head is float32 by definition
    generator = torch.Generator().manual_seed(0)
    window = torch.hann_window(N_FFT, device=device)
    bins = N_FFT // 2 + 1

    def frames(count: int) -> Tensor:
        size, phase = torch.randn(2, count, bins, generator=generator)
        return torch.cat([size - 3, 6 * phase], 1).to(device)

    for seconds in (1, 30, 60):
        x = frames(100 * seconds)
        yield Case(
            name=f"vocoder_head/{seconds}s",
            native=lambda x=x: vocoder_head(x, window, HOP),
            reference=lambda x=x: reference.vocoder_head(x, window, HOP),
            check=check_wave,
            bytes=4.0 * len(x) * (N_FFT + 2 + HOP),
            target=2.0,
        )
    batch, bounds = frames(8 * 128), torch.arange(0, 8 * 128 + 1, 128, dtype=torch.int32, device=device)
    yield Case(
        name="vocoder_head/training_8x1.28s",
        native=lambda: gradient(vocoder_head, batch, window, bounds),
        reference=lambda: gradient(reference.vocoder_head, batch, window, bounds),
        check=check_wave,
        bytes=4.0 * len(batch) * (3 * (N_FFT + 2) + 2 * HOP),
        target=2.0,
    )
