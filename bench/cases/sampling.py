"""sample on rows of the full model's text vocabulary; the baseline filters and draws as the published code does."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.case import Case
from mimo_audio_native import sample

VOCABULARY = 151680
TEMPERATURE = 0.9


def published_filter(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Scores [B, V], -inf where removed: temperature, top-k by a mask, top-p by sorting, adding up and scattering."""
    scores = logits / temperature
    if top_k > 0:
        scores = scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], float("-inf"))
    if top_p < 1:
        rising, order = scores.sort(descending=False)
        drop = rising.softmax(-1).cumsum(-1) <= 1 - top_p
        drop[:, -1:] = False
        scores = scores.masked_fill(drop.scatter(1, order, drop), float("-inf"))
    return scores


def published_sample(logits: Tensor, temperature: float, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Tokens [B] and the filtered scores."""
    scores = published_filter(logits, temperature, top_k, top_p)
    return scores.softmax(-1).multinomial(1)[:, 0], scores


def settings(batch: int, temperature: float, top_k: int, top_p: float, device: str) -> tuple[Tensor, ...]:
    """The arguments of our samplers after the logits."""
    numbers = (torch.full((batch,), temperature), torch.full((batch,), top_k).int(), torch.full((batch,), top_p))
    return tuple(t.to(device) for t in (*numbers, torch.arange(batch), torch.arange(batch)))


def check(tokens: Tensor, published: tuple[Tensor, Tensor]) -> None:
    """The draws differ; ours must be among what the published filter keeps."""
    assert published[1].gather(1, tokens[:, None]).isfinite().all()


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 16):
        logits = (3 * torch.randn(batch, VOCABULARY, generator=generator)).to(device, dtype)
        for name, top_k, top_p in (("top_p", 0, 0.95), ("top_k_p", 50, 0.95)):
            rest = settings(batch, TEMPERATURE, top_k, top_p, device)
            yield Case(
                name=f"sample/{name}_{batch}",
                native=lambda logits=logits, rest=rest: sample(logits, *rest),
                reference=lambda logits=logits, k=top_k, p=top_p: published_sample(logits, TEMPERATURE, k, p),
                check=check,
                bytes=float(logits.nbytes),
            )
