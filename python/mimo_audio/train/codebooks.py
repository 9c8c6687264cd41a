"""Codebooks without gradients: k-means start, exponential moving averages, revival of entries that nothing chooses.

MiMo-Audio report, section 2.1 (RVQ); the names of the state are those of the released checkpoints.
"""

from typing import cast

import torch
from torch import Tensor

from mimo_audio.tokenizer.quantizer import Codebook, Quantizer

DECAY = 0.99
REVIVE_BELOW = 0.05  # of the mean usage: an absolute threshold would expire most of a large codebook at small batches
KMEANS_ROUNDS = 12


def layers(quantizer: Quantizer) -> list[Codebook]:
    """The codebooks, first to last."""
    return [cast(Codebook, codebook) for codebook in quantizer.codebooks]


@torch.no_grad()
def start(quantizer: Quantizer, features: Tensor, generator: torch.Generator) -> None:
    """Sets every codebook by k-means on what the ones before it leave of features [N, d_model], N >= 1."""
    residual = features.float()
    for codebook in layers(quantizer):
        entries = residual[_draw(len(residual), len(codebook.embed), generator)]
        for _ in range(KMEANS_ROUNDS):
            nearest = torch.cdist(residual, entries).argmin(1)
            counts = torch.bincount(nearest, minlength=len(entries)).float()
            sums = torch.zeros_like(entries).index_add_(0, nearest, residual)
            empty = counts == 0
            entries = sums / counts.clamp(min=1)[:, None]
            entries[empty] = residual[_draw(len(residual), int(empty.sum()), generator)]
        nearest = torch.cdist(residual, entries).argmin(1)
        counts = torch.bincount(nearest, minlength=len(entries)).float()
        codebook.embed.copy_(entries)
        codebook.cluster_size.copy_(counts.clamp(min=counts.mean() * REVIVE_BELOW))
        codebook.embed_avg.copy_(entries * codebook.cluster_size[:, None])
        codebook.inited.fill_(1)
        residual = residual - entries[nearest]


@torch.no_grad()
def update(
    quantizer: Quantizer, features: Tensor, codes: Tensor, counts: Tensor, sums: Tensor, generator: torch.Generator
) -> int:
    """One step of the averages, from what `rvq_quantize` gave for features [N, d_model]; returns how many revived.

    An entry whose average use falls below 5% of the codebook's mean starts again as a residual of this batch.
    """
    residual = features.detach().float()
    revived = 0
    used = layers(quantizer)[: len(codes)]
    sizes = [len(codebook.embed) for codebook in used]
    for codebook, index, count, total in zip(used, codes, counts.split(sizes), sums.split(sizes), strict=True):
        chosen = codebook.embed[index]
        codebook.cluster_size.lerp_(count, 1 - DECAY)
        codebook.embed_avg.lerp_(total, 1 - DECAY)
        codebook.embed.copy_(codebook.embed_avg / codebook.cluster_size.clamp(min=1e-6)[:, None])
        revived += _revive(codebook, residual, generator)
        residual = residual - chosen
    return revived


def _revive(codebook: Codebook, residual: Tensor, generator: torch.Generator) -> int:
    mean = codebook.cluster_size.mean()
    unused = codebook.cluster_size < REVIVE_BELOW * mean
    if not unused.any():
        return 0
    fresh = residual[_draw(len(residual), int(unused.sum()), generator)]
    size = 0.5 * mean  # long enough a life to be chosen before it is judged again
    codebook.embed[unused] = fresh
    codebook.cluster_size[unused] = size
    codebook.embed_avg[unused] = fresh * size
    return len(fresh)


def perplexity(codebook: Codebook) -> float:
    """How many entries are in use: the exponential of the entropy of the averaged usage."""
    share = codebook.cluster_size / codebook.cluster_size.sum().clamp(min=1e-9)
    return float(torch.special.entr(share).sum().exp())


def _draw(population: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` row numbers, without repetition where there are enough rows."""
    if count <= population:
        return torch.randperm(population, generator=generator)[:count]
    return torch.randint(population, (count,), generator=generator)
