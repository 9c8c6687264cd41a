"""window_attention at the full tokenizer's sizes for 30 s of audio: vocoder (100 Hz), encoder and decoder (50 Hz).

A GPU also gets the vocoder's for 64 sequences of 30 s at once.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import reference, window_attention

# name, sequences, rows of each, heads, head width, (left, right)
SIZES = [
    ("vocoder", 1, 3000, 16, 16, (40, 10)),
    ("narrow_causal", 1, 1500, 4, 64, (64, 0)),
    ("decoder", 1, 1500, 20, 64, (-1, 0)),
    ("encoder", 1, 1500, 20, 64, (-1, -1)),
]
CUDA_SIZES = [("vocoder_64", 64, 3000, 16, 16, (40, 10))]


def visible_pairs(rows: int, left: int, right: int) -> int:
    before = min(left, rows) if left >= 0 else rows
    after = min(right, rows) if right >= 0 else rows
    return sum(min(i, before) + min(rows - 1 - i, after) + 1 for i in range(rows))


def with_gradients(
    attend: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor, rest: tuple
) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        out = attend(*inputs, *rest)
    return (out.detach(), *torch.autograd.grad(out, inputs, grad))


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}.get(dtype, 2e-2)

    def check(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
        for a, b in zip(got, wanted, strict=True):
            error = float((a.float() - b.float()).norm() / b.float().norm())
            assert error < tolerance, f"relative error {error:.2g}, allowed {tolerance:.2g}"

    for name, sequences, length, heads, dim, (left, right) in SIZES + (CUDA_SIZES if device == "cuda" else []):
        rows = sequences * length
        qkv = torch.randn(rows, 3, heads, dim, generator=generator).to(device, dtype)
        grad = torch.randn(rows, heads, dim, generator=generator).to(device, dtype)
        angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, dim, 2) / dim)
        bounds = None if sequences == 1 else torch.arange(0, rows + 1, length, dtype=torch.int32, device=device)
        rest = (bounds, left, right, angles.cos().to(device), angles.sin().to(device), None)
        plain = list(qkv.unbind(1))
        tracked = [t.detach().requires_grad_() for t in plain]
        flops, size = 4.0 * dim * heads * visible_pairs(length, left, right) * sequences, grad.nbytes
        half = dtype in (torch.bfloat16, torch.float16)
        yield Case(
            name=f"window_attention/{name}",
            native=lambda plain=plain, rest=rest: (window_attention(*plain, *rest),),
            reference=lambda plain=plain, rest=rest: (reference.window_attention(*plain, *rest),),
            check=check,
            flops=flops,
            bytes=4.0 * size,
            target=5.0 if name == "vocoder" else None,
            cuda_seconds=2 * 0.5e-9 * rows if name == "vocoder_64" and half else None,
        )
        if sequences > 1:
            continue
        yield Case(
            name=f"window_attention/{name}_training",
            native=lambda t=tracked, g=grad, rest=rest: with_gradients(window_attention, t, g, rest),
            reference=lambda t=tracked, g=grad, rest=rest: with_gradients(reference.window_attention, t, g, rest),
            check=check,
            flops=3.5 * flops,
            bytes=11.0 * size,
        )
