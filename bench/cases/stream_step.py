"""stream_layers: the vocoder's stack over one new code frame, for one stream and for eight; weights are read once."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import reference, stream_layers

SIZES = [("nano", 256, 4, 512, 3), ("66M", 256, 16, 1024, 8), ("released", 256, 16, 1024, 16)]
ROWS = 4


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    def check(got: Tensor, wanted: Tensor) -> None:
        error = float((got - wanted).float().norm() / wanted.float().norm())
        assert error < (1e-4 if dtype == torch.float32 else 0.05), f"relative error {error:.1e}"

    for name, dim, heads, ffn, layers in SIZES:
        for batch in (1, 8):
            torch.manual_seed(0)

            def weight(*sizes: int) -> Tensor:
                return (torch.randn(sizes) * sizes[-1] ** -0.5).to(device, dtype)

            square, norm = [weight(dim, dim), weight(dim)], [weight(dim), weight(dim)]
            wide = [weight(ffn, dim), weight(ffn), weight(dim, ffn), weight(dim)]
            block = [*norm, *square, weight(dim, dim), *square * 2, *norm, *wide]
            weights = [t.clone() for _ in range(layers) for t in block]
            ring, width = 128, dim // heads
            arguments = (
                weights,
                [10] * layers,
                weight(batch, layers, 2, heads, ring, width),
                weight(batch, 10 * layers, dim),
                torch.rand(width // 2, dtype=torch.float64, device=device),
                torch.full((batch,), 10_000, device=device),
                torch.full((batch,), 1 << 40, device=device),
                None,
                40,
                0,
                "gelu",
                1e-5,
            )
            x = weight(batch, ROWS, dim)

            def run(op, x: Tensor = x, arguments: tuple = arguments) -> Tensor:
                state = [t.clone() for t in arguments[2:4]]
                return op(x, *arguments[:2], *state, *arguments[4:])

            yield Case(
                name=f"stream_layers/{name}_x{batch}",
                native=lambda run=run: run(stream_layers),
                reference=lambda run=run: run(reference.stream_layers),
                check=check,
                bytes=float(sum(t.nbytes for t in weights)),
                target=2.0,
            )
