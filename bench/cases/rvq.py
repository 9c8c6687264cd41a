"""RVQ at the full tokenizer's size (25 rows per second of audio; an hour on a GPU), its training form at nano size."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import RvqTables, reference, rvq_decode, rvq_encode, rvq_quantize

SIZES, DIM = [1024, 1024] + [128] * 18, 1280
NANO_SIZES, NANO_DIM = [1024, 1024] + [128] * 6, 192


def check_codes(ours: Tensor, theirs: Tensor) -> None:
    """The reference decides close calls by float32 rounding errors: a few rows may part from the exact codes."""
    assert (ours != theirs).any(0).float().mean() < 0.05


def check_quantized(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    check_codes(ours[1], theirs[1])
    torch.testing.assert_close(ours[2], theirs[2], rtol=1e-3, atol=0)


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    del dtype  # RVQ is float32 by definition
    generator = torch.Generator().manual_seed(0)
    codebooks = [torch.randn(size, DIM, generator=generator).to(device) for size in SIZES]
    on_cuda = device.startswith("cuda")
    large = (90_000,) if on_cuda else ()
    for count in (1, 750, 3000, *large):
        codes = torch.stack([torch.randint(size, (count,), generator=generator) for size in SIZES]).to(device)
        yield Case(
            name=f"rvq_decode/{count}",
            native=partial(rvq_decode, codes, codebooks),
            reference=partial(reference.rvq_decode, codes, codebooks),
            check=lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0),
            bytes=4.0 * DIM * min(count * len(SIZES), sum(SIZES)) + 4.0 * DIM * count + 8.0 * len(SIZES) * count,
        )
    tables = RvqTables()  # made by the first call, which is not timed
    for count in (1, 25, *((8, 64) if on_cuda else ()), 750, 3000, *large):
        x = 4 * torch.randn(count, DIM, generator=generator).to(device)
        yield Case(
            name=f"rvq_encode/{count}",
            native=partial(rvq_encode, x, codebooks, tables),
            reference=partial(reference.rvq_encode, x, codebooks),
            check=check_codes,
            # Exact to float32 on tensor cores: three bfloat16 products. The entries are read once, as is x.
            flops=(6.0 if on_cuda else 2.0) * DIM * sum(SIZES) * count,
            bytes=4.0 * DIM * (sum(SIZES) + count),
            target=3.0,
            cuda_target=5.0,
            cuda_seconds=0.2e-6 * count if count > 3000 else None,
        )
    nano = [torch.randn(size, NANO_DIM, generator=generator).to(device) for size in NANO_SIZES]
    for count in (750, 3000):
        x = 4 * torch.randn(count, NANO_DIM, generator=generator).to(device)
        yield Case(
            name=f"rvq_quantize/{count}",
            native=partial(rvq_quantize, x, nano),
            reference=partial(reference.rvq_quantize, x, nano),
            check=check_quantized,
            flops=2.0 * NANO_DIM * sum(NANO_SIZES) * count,
        )
