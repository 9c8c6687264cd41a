"""rotary at the shapes of the tokenizer's attention (one segment of 60 s) and of the backbone's prefill."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import reference, rotary

SIZES = [("encoder_3000", 3000, 20, 20, 64), ("backbone_1000", 1000, 32, 8, 128), ("nano_200", 200, 4, 4, 16)]
H200_COPY = 4.3e12  # bytes per second


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)

    def check(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
        for a, b in zip(got, wanted, strict=True):
            assert torch.equal(a, b), f"{(a != b).sum()} of {a.numel()} elements differ"

    for name, rows, q_heads, k_heads, dim in SIZES:
        q, k = (torch.randn(rows, n, dim, generator=generator).to(device, dtype) for n in (q_heads, k_heads))
        angles = torch.arange(rows)[:, None] * 10000.0 ** (-torch.arange(0, dim, 2) / dim)
        tables = (angles.cos().to(device), angles.sin().to(device))
        moved = 2.0 * rows * (q_heads + k_heads) * dim * dtype.itemsize
        yield Case(
            name=f"rotary/{name}",
            native=lambda q=q, k=k, tables=tables: rotary(q, k, *tables),
            reference=lambda q=q, k=k, tables=tables: reference.rotary(q, k, *tables),
            check=check,
            bytes=moved,
            target=3.0 if rows >= 1000 else None,
            cuda_target=5.0 if rows >= 1000 else None,
            cuda_seconds=1.5 * moved / H200_COPY + 2e-6 if rows >= 1000 else None,
        )
