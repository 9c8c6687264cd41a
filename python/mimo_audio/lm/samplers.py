"""How a token is drawn from its logits: the largest, or at random after temperature, top-k and top-p."""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from mimo_audio.errors import GenerationError

HOTTEST = 1e9  # far beyond where all tokens are alike


@dataclass(frozen=True)
class Sampler:
    """Divide by `temperature` (0: greedy), keep the `top_k` largest (0: all), then the fewest that reach mass `top_p`.

    Raises GenerationError if a value is out of range, or if a greedy sampler is given a top_k or top_p.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not _is_number(self.temperature) or not 0 <= self.temperature <= HOTTEST:
            raise GenerationError(f"temperature: expected a number >= 0, up to {HOTTEST:g}, got {self.temperature!r}")
        if not isinstance(self.top_k, int) or isinstance(self.top_k, bool) or not 0 <= self.top_k < 1 << 31:
            raise GenerationError(f"top_k: expected an integer >= 0 (0: all), got {self.top_k!r}")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise GenerationError(f"top_p: expected a number above 0 and up to 1, got {self.top_p!r}")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise GenerationError(
                f"temperature 0 takes the largest logit and contradicts top_k {self.top_k}, top_p {self.top_p}: "
                "expected top_k 0 and top_p 1, or a temperature above 0"
            )

    def rows(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """temperature [B] float32, top_k [B] int32, top_p [B] float32, as the sampling ops take them."""
        return (
            torch.full((batch,), self.temperature, dtype=torch.float32, device=device),
            torch.full((batch,), self.top_k, dtype=torch.int32, device=device),
            torch.full((batch,), self.top_p, dtype=torch.float32, device=device),
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


GREEDY = Sampler()
AUDIO = Sampler(temperature=0.9, top_p=0.95)  # of every task, as published
