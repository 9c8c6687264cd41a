"""delayed_sampling at a step with four active codebooks; the baseline loops over them as the published code does."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.case import Case
from bench.cases.sampling import published_sample, settings
from mimo_audio_native import delayed_sampling

SIZES = [1025, 1025] + [129] * 6
DELAYS, GROUP_SIZE, STEP = list(range(8)), 4, 3
EMPTY_IDS = [size - 1 for size in SIZES]
TEMPERATURE, TOP_P = 0.9, 0.95


def published_step(hidden: Tensor, heads: list[Tensor], embeddings: list[Tensor], tokens: Tensor) -> Tensor:
    """Sum of the drawn tokens' embeddings [B, E]; tokens [B, G, C] are written."""
    total = torch.zeros(len(hidden), embeddings[0].shape[1], dtype=hidden.dtype, device=hidden.device)
    for channel, (head, embedding) in enumerate(zip(heads, embeddings, strict=True)):
        frame = STEP - DELAYS[channel]
        if not 0 <= frame < GROUP_SIZE:
            continue
        logits = F.linear(hidden, head)
        logits[:, EMPTY_IDS[channel]] = float("-inf")
        drawn, _ = published_sample(logits, TEMPERATURE, 0, TOP_P)
        tokens[:, frame, channel] = drawn
        total += F.embedding(drawn, embedding)
    return total


def check(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """The draws differ; ours must fill the same places with codes of the codebooks."""
    assert ours[0].shape == theirs[0].shape
    assert torch.equal(ours[1] >= 0, theirs[1] >= 0)
    assert (ours[1] < torch.tensor(EMPTY_IDS, device=ours[1].device)).all()


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for name, dim in (("full", 1024), ("nano", 128)):
        heads = [torch.randn(size, dim, generator=generator).mul(2 * dim**-0.5).to(device, dtype) for size in SIZES]
        embeddings = [torch.randn(size, dim, generator=generator).to(device, dtype) for size in SIZES]
        active = [head for head, delay in zip(heads, DELAYS, strict=True) if delay <= STEP < delay + GROUP_SIZE]
        for batch in (1, 16):
            hidden = torch.randn(batch, dim, generator=generator).to(device, dtype)
            ours, theirs = (torch.full((batch, GROUP_SIZE, len(SIZES)), -1, device=device) for _ in range(2))
            before = (hidden, heads, embeddings, EMPTY_IDS, DELAYS, STEP)
            rest = settings(batch, TEMPERATURE, 0, TOP_P, device)
            yield Case(
                name=f"delayed_sampling/{name}_{batch}",
                native=lambda b=before, t=ours, rest=rest: (delayed_sampling(*b, t, *rest), t),
                reference=lambda b=before, t=theirs: (published_step(*b[:3], t), t),
                check=check,
                flops=2.0 * batch * sum(head.numel() for head in active),
                bytes=float(sum(head.nbytes for head in active)),
            )
