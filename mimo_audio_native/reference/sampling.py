"""Definition of sample: temperature, top-k, top-p, and a counter-based draw (MiMo-Audio report, section 2.2)."""

import torch
from torch import Tensor

# Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox(counter: list[int], key: list[int]) -> list[int]:
    """The four 32-bit words of Philox4x32-10 for a counter of four words and a key of two."""
    for _ in range(10):
        high, low = zip(*(divmod(m * c, 1 << 32) for m, c in zip(_MULTIPLIERS, counter[::2], strict=True)), strict=True)
        counter = [high[1] ^ counter[1] ^ key[0], low[1], high[0] ^ counter[3] ^ key[1], low[0]]
        key = [(word + step) & _WORD for word, step in zip(key, _WEYL, strict=True)]
    return counter


def philox_uniform(seed: int, offset: int, stream: int) -> float:
    """The uniform number in [0, 1) with 53 bits of request `seed`, at position `offset`, for draw `stream`."""
    words = philox([offset & _WORD, offset >> 32 & _WORD, stream & _WORD, 0], [seed & _WORD, seed >> 32 & _WORD])
    return ((words[0] << 32 | words[1]) >> 11) * 2.0**-53


def filter_scores(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """logits [V] -> logits / temperature in float32, -inf where top-k, then top-p, remove an entry.

    top_k <= 0 keeps all; ties with the k-th largest stay. top_p keeps the smallest set of largest entries whose
    probability reaches top_p, and at least one; of ties at its edge the last stay; outside (0, 1) it keeps all.
    """
    scores = logits.float() / temperature
    if 0 < top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(top_k).values[-1], float("-inf"))
    if 0 < top_p < 1:
        rising, order = scores.sort(stable=True)
        drop = rising.double().softmax(0).cumsum(0) <= 1 - top_p
        drop[-1] = False
        scores = scores.index_fill(0, order[drop], float("-inf"))
    return scores


def sample(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, seeds: Tensor, offsets: Tensor, stream: int = 0
) -> Tensor:
    """logits [B, V] -> tokens [B] int64; see ``mimo_audio_native``."""
    rows = zip(*(x.tolist() for x in (temperature, top_k, top_p, seeds, offsets)), strict=True)
    return torch.tensor(
        [
            _sample_row(row, t, k, p, philox_uniform(seed, offset, stream))
            for row, (t, k, p, seed, offset) in zip(logits, rows, strict=True)
        ],
        dtype=torch.int64,
        device=logits.device,
    )


def _sample_row(logits: Tensor, temperature: float, top_k: int, top_p: float, uniform: float) -> int:
    if temperature == 0:
        return int(logits.float().argmax())
    cumulative = filter_scores(logits, temperature, top_k, top_p).double().softmax(0).cumsum(0)
    return int((cumulative <= uniform * cumulative[-1]).sum())
