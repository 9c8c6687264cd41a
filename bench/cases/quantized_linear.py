"""quantized_linear at the shapes of the 7B model, beside the same layers in the run's dtype.

A call goes through several matrices, more bytes than caches hold: what decoding does.
"""

from collections.abc import Iterator
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.case import Case
from mimo_audio_native import quantize_weight, quantized_linear

SHAPES = ((4096, 4096), (11008, 4096), (1024, 4096))
FORMATS = {"int8": (8, 32), "int4": (4, 32), "int4_128": (4, 128)}
BYTES = 128 << 20  # of the plain weights of a call


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    element = torch.empty((), dtype=dtype).element_size()
    for rows, columns in SHAPES:
        count = -(-BYTES // (rows * columns * element))

        @cache
        def plain(rows: int = rows, columns: int = columns, count: int = count) -> list[Tensor]:
            torch.manual_seed(0)
            return [torch.randn(rows, columns, device=device).to(dtype) / columns**0.5 for _ in range(count)]

        for kind, (bits, group) in FORMATS.items():

            @cache
            def small(plain=plain, bits: int = bits, group: int = group) -> list[Tensor]:
                return [quantize_weight(weight, bits, group) for weight in plain()]

            bytes_per_row = columns + 4 if bits == 8 else columns // 2 + columns // group * 2
            for batch in (1, 8, 256):
                x = torch.randn(batch, columns, generator=torch.Generator().manual_seed(1)).to(device, dtype)

                def check(
                    ours: list[Tensor], wanted: list[Tensor], allowed: float = 0.02 if bits == 8 else 0.2
                ) -> None:
                    for a, b in zip(ours, wanted, strict=True):
                        error = float((a - b).float().norm() / b.float().norm())
                        assert error < allowed, f"relative error {error:.1e}"

                def run(linear, weights, x: Tensor) -> list[Tensor]:
                    return [linear(x, weight) for weight in weights()]

                yield Case(
                    name=f"quantized_linear/{kind}_{rows}x{columns}_batch{batch}",
                    native=partial(run, quantized_linear, small, x),
                    reference=partial(run, F.linear, plain, x),
                    check=check,
                    bytes=float(count * rows * bytes_per_row),
                )
