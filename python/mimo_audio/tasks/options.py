"""Options that every generating task takes as keywords."""

from collections.abc import Callable
from math import isfinite
from typing import TypedDict

from torch import Tensor

from mimo_audio.errors import GenerationError
from mimo_audio.lm.samplers import GREEDY, Sampler
from mimo_audio.prompts import Prompt


class Options(TypedDict, total=False):
    """All optional; None is the same as absent.

    temperature, top_k, top_p (of text) and audio_temperature, audio_top_k, audio_top_p (of patches) override the task's
    samplers; temperature 0 is greedy. The same seed (default 0) gives the same answer. At most max_new text tokens and
    patches together and max_seconds of speech are made (default: until the model ends or its context is full). on_text
    is called with each piece of text and on_patch with each patch, codes int64 [C, G], as they are made. An answer also
    ends, with what there is, after `deadline` seconds, and where it repeats itself over and over or takes far longer to
    speak than its text can need, unless guard is False.
    """

    temperature: float | None
    top_k: int | None
    top_p: float | None
    audio_temperature: float | None
    audio_top_k: int | None
    audio_top_p: float | None
    seed: int | None
    max_new: int | None
    max_seconds: float | None
    deadline: float | None
    guard: bool | None
    on_text: Callable[[str], object] | None
    on_patch: Callable[[Tensor], object] | None


def check(options: Options) -> None:
    """Raises TypeError for keywords that are no options, GenerationError for a bad max_seconds."""
    unknown = sorted(options.keys() - Options.__annotations__.keys())
    if unknown:
        raise TypeError(
            f"unexpected keyword arguments {', '.join(unknown)}; options are {', '.join(Options.__annotations__)}"
        )
    seconds = options.get("max_seconds")
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (number and isfinite(seconds) and seconds > 0):
        raise GenerationError(f"max_seconds: expected a number above 0, got {seconds!r}")


def samplers(prompt: Prompt, options: Options) -> tuple[Sampler, Sampler]:
    """Samplers of text and of patches: the prompt's, with what the options override. Raises GenerationError."""
    text = (options.get("temperature"), options.get("top_k"), options.get("top_p"))
    patches = (options.get("audio_temperature"), options.get("audio_top_k"), options.get("audio_top_p"))
    return _overridden(prompt.text_sampler, "", *text), _overridden(prompt.audio_sampler, "audio_", *patches)


def _overridden(
    sampler: Sampler, prefix: str, temperature: float | None, top_k: int | None, top_p: float | None
) -> Sampler:
    if temperature == 0:
        sampler = GREEDY  # the task's top_p would contradict it
    try:
        return Sampler(
            sampler.temperature if temperature is None else temperature,
            sampler.top_k if top_k is None else top_k,
            sampler.top_p if top_p is None else top_p,
        )
    except GenerationError as error:
        raise GenerationError(f"{prefix}{error}") from error
