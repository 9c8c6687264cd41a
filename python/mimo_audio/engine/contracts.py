"""What goes into the engine and what comes out: requests, limits, results. Immutable; no model, no state."""

from collections.abc import Collection
from dataclasses import dataclass, field
from math import isfinite
from operator import index
from typing import Literal, get_args

from torch import Tensor

from mimo_audio.errors import GenerationError, MimoError
from mimo_audio.lm.samplers import GREEDY, Sampler

FinishReason = Literal["stop", "length", "cancelled", "repetition", "deadline", "error"]
FINISH_REASONS = get_args(FinishReason)


class QueueFullError(GenerationError):
    """More requests wait than the engine takes: come back later."""


@dataclass(frozen=True)
class Limits:
    """When a generation ends: after `max_new` groups, or with a text id of `stop` once there are `min_new` groups.

    Stop ids are not drawn before. max_patches: ends with so many patches. deadline: ends so many seconds after the
    request came, with what there is by then. Raises GenerationError.
    """

    max_new: int
    min_new: int = 0
    stop: Collection[int] = ()
    max_patches: int | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        for name, least, what in (("max_new", 1, "groups"), ("min_new", 0, "groups"), ("max_patches", 1, "patches")):
            value = getattr(self, name)
            if name == "max_patches" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise GenerationError(f"{name}: expected a number of {what} >= {least}, got {value!r}")
        try:
            object.__setattr__(self, "stop", tuple(map(index, self.stop)))
        except TypeError as error:
            raise GenerationError(f"stop: expected a collection of text ids, got {self.stop!r:.50}") from error
        if self.min_new > self.max_new:
            raise GenerationError(f"min_new: expected at most max_new ({self.max_new}), got {self.min_new}")
        seconds = self.deadline
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (number and isfinite(seconds) and seconds > 0):
            raise GenerationError(f"deadline: expected seconds above 0, got {seconds!r}")


@dataclass(frozen=True)
class Guard:
    """Ends what has run away: the same text or patches over and over, or more patches than the text can need.

    A loop is a sequence of at most `longest` tokens (or patches) that came at least `repeats` times in a row and is as
    long as `text` tokens (or `patches` patches) in all. most_patches: None for no limit.
    """

    repeats: int = 8
    longest: int = 24
    text: int = 64
    patches: int = 75
    most_patches: int | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt, ids int [1 + C, P * G], and how it goes on: the tokens depend on this alone, whatever runs beside it.

    guard None: nothing is taken for a runaway.
    """

    prompt_ids: Tensor = field(repr=False)
    limits: Limits
    text_sampler: Sampler = GREEDY
    audio_sampler: Sampler = GREEDY
    seed: int = 0
    guard: Guard | None = None


@dataclass(frozen=True)
class Usage:
    """What a request took: positions of its prompt, those that were read already, text tokens and patches made.

    queued: seconds until it had a slot; first: until its first group was there (None if none was); seconds: in all.
    """

    prompt: int
    cached: int
    text: int
    patches: int
    queued: float
    first: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Result:
    """The new groups int64 [1 + C, n * G] on the CPU, why there are no more, the error if that is why, and usage."""

    ids: Tensor = field(repr=False)
    reason: FinishReason
    usage: Usage
    error: MimoError | None = None
