"""rvq_decode at the full tokenizer's size: 20 layers of 1024, 1024, 18 x 128 entries, D = 1280."""

from collections.abc import Iterator

import torch

from bench.case import Case
from mimo_audio_native import reference, rvq_decode

SIZES = [1024, 1024] + [128] * 18
DIM = 1280


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    del dtype  # RVQ is float32 by definition
    generator = torch.Generator().manual_seed(0)
    codebooks = [torch.randn(size, DIM, generator=generator).to(device) for size in SIZES]
    for count in (1, 750, 3000):
        codes = torch.stack([torch.randint(size, (count,), generator=generator) for size in SIZES]).to(device)
        yield Case(
            name=f"rvq_decode/{count}",
            native=lambda codes=codes: rvq_decode(codes, codebooks),
            reference=lambda codes=codes: reference.rvq_decode(codes, codebooks),
            check=lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0),
            bytes=4.0 * DIM * count * (len(SIZES) + 1),
        )
