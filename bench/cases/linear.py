"""linear: a few rows with the text head, at nano, middle and full size; the weights are read once for all rows."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import linear, reference

SIZES = [("nano_head", 192, 512), ("middle_head", 1024, 32000), ("released_head", 4096, 151680)]


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    def check(got: Tensor, wanted: Tensor) -> None:
        error = float((got - wanted).float().norm() / wanted.float().norm())
        assert error < (1e-5 if dtype == torch.float32 else 0.02), f"relative error {error:.1e}"

    for name, width, outputs in SIZES:
        for batch in (1, 8):
            generator = torch.Generator().manual_seed(0)
            x, weight = (torch.randn(rows, width, generator=generator).to(device, dtype) for rows in (batch, outputs))
            yield Case(
                name=f"linear/{name}_x{batch}",
                native=lambda x=x, weight=weight: linear(x, weight),
                reference=lambda x=x, weight=weight: reference.linear(x, weight),
                check=check,
                bytes=float(weight.nbytes),
            )
