"""patch_decode at the full, a middle and the nano size: 11 steps over random weights, greedy or sampled."""

from collections.abc import Iterator
from functools import lru_cache, partial

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import patch_decode, reference

# width, layers, heads, FFN
SIZES = {"full": (1024, 16, 64, 4096), "mid": (512, 8, 8, 2048), "nano": (128, 3, 4, 512)}
VOCABULARY = [1025, 1025, 129, 129, 129, 129, 129, 129]
GROUP_SIZE, DELAYS = 4, list(range(8))
STEPS = GROUP_SIZE + max(DELAYS)
# size, batch, temperature, top-p
CASES = [
    ("full", 1, 0.0, 1.0),
    ("full", 1, 0.9, 0.95),
    ("mid", 1, 0.0, 1.0),
    ("mid", 1, 0.9, 0.95),
    ("mid", 8, 0.0, 1.0),
    ("nano", 1, 0.0, 1.0),
    ("nano", 1, 0.9, 0.95),
    ("nano", 8, 0.9, 0.95),
]
CUDA_CASES = [("full", 64, 0.0, 1.0)]  # in half precision


@lru_cache(maxsize=1)  # built when a case runs, and one at a time: the full size has over 1 GB
def weights(size: str, device: str, dtype: torch.dtype) -> tuple:
    """The arguments of patch_decode between hidden and temperature."""
    generator = torch.Generator().manual_seed(0)

    def matrix(*sizes: int) -> Tensor:
        return (torch.randn(sizes, generator=generator) * sizes[-1] ** -0.5).to(device, dtype)

    dim, layers, heads, ffn = SIZES[size]
    blocks = []
    for _ in range(layers):
        norm = torch.ones(dim, device=device, dtype=dtype)
        attention = [t for _ in "qkv" for t in (matrix(dim, dim), matrix(dim))]
        blocks += [norm, *attention, matrix(dim, dim), norm, matrix(ffn, dim), matrix(ffn, dim), matrix(dim, ffn)]
    width = dim // heads
    angles = torch.outer(torch.arange(STEPS), 640000.0 ** (-torch.arange(0, width, 2) / width)).to(device)
    return (
        blocks,
        torch.ones(dim, device=device, dtype=dtype),
        [4 * matrix(rows, dim) for rows in VOCABULARY],
        [matrix(rows, dim) * dim**0.5 for rows in VOCABULARY],
        None,
        angles.cos(),
        angles.sin(),
        heads,
        1e-6,
        [rows - 1 for rows in VOCABULARY],
        DELAYS,
        GROUP_SIZE,
    )


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    element = torch.empty((), dtype=dtype).element_size()

    def check(ours: Tensor, theirs: Tensor) -> None:
        if dtype == torch.float32:
            assert torch.equal(ours, theirs), f"{(ours == theirs).float().mean():.0%} of the tokens equal"
        else:  # rounding changes a token, and that all after it: tests/ops/test_patch_decode.py judges their scores
            assert ours.shape == theirs.shape
            assert ((ours >= 0) & (ours < torch.tensor(VOCABULARY, device=device) - 1)).all()

    for size, batch, temperature, top_p in CASES + (CUDA_CASES if device == "cuda" and element == 2 else []):
        dim, layers, _, ffn = SIZES[size]
        rows = torch.arange(batch, device=device)
        hidden = torch.randn(batch, dim, generator=torch.Generator().manual_seed(1)).to(device, dtype)
        sampler = (rows * 0.0 + temperature, (rows * 0).int(), rows * 0.0 + top_p, rows, rows * 0)

        def run(function, size: str, hidden: Tensor, sampler: tuple[Tensor, ...]) -> Tensor:
            return function(hidden, *weights(size, device, dtype), *sampler)

        count = STEPS * layers * dim * (4 * dim + 3 * ffn) + GROUP_SIZE * sum(VOCABULARY) * dim
        yield Case(
            name=f"patch_decode/{size}_batch{batch}_{'greedy' if temperature == 0 else 'sampled'}",
            native=partial(run, patch_decode, size, hidden, sampler),
            reference=partial(run, reference.patch_decode, size, hidden, sampler),
            check=check,
            flops=2.0 * batch * count,
            bytes=float(element * count),
            target=3.0,
            cuda_seconds=2.0e-3 if size == "full" and batch == 1 and element == 2 else None,
        )
