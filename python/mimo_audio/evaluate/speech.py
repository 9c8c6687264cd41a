"""What evaluators of speech make of a wave, and how much of the codebooks its codes use.

An evaluator is any function of a wave [N] (float32, mono) and its sample rate: a recogniser returns text, a speaker
encoder an embedding [D]. Built-in ones have short names; any other is named "MODULE:FUNCTION".
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import MEL_RATE, Wave

Evaluator = Callable[[Wave, int], Any]

RECOGNISERS = {name: f"mimo_audio.evaluate.recognisers:{name}" for name in ("digits", "commands")}
SPEAKERS = {"resemblyzer": "mimo_audio.evaluate.speakers:resemblyzer"}


def load_evaluator(option: str, name: str) -> Evaluator:
    """The evaluator of this name, tried on a second of faint noise. Raises MimoError that names the option."""
    module, _, function = (RECOGNISERS | SPEAKERS).get(name, name).partition(":")
    try:
        evaluator = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(RECOGNISERS if option == "--recogniser" else SPEAKERS)
        raise MimoError(f"{option}: cannot find {name!r} (expected {known} or MODULE:FUNCTION): {error}") from error
    if not callable(evaluator):
        raise MimoError(f"{option}: expected a function, got {name!r}, which is none")
    noise = np.random.default_rng(0).normal(0, 1e-3, MEL_RATE).astype(np.float32)
    ask(option, evaluator, noise, MEL_RATE)
    return evaluator


def ask(option: str, evaluator: Evaluator, wave: Wave, sample_rate: int) -> Any:
    """The evaluator's answer. Raises MimoError, whatever the evaluator raises."""
    try:
        return evaluator(wave, sample_rate)
    except MimoError:
        raise
    except Exception as error:
        raise MimoError(f"{option}: the evaluator failed: {type(error).__name__}: {error}") from error


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float | None:
    """Cosine of two embeddings [D], None if one is zero."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(np.ravel(a), np.ravel(b))) / norms if norms else None


def codebook_usage(codes: NDArray[np.integer], sizes: Sequence[int]) -> list[dict[str, float]]:
    """Per codebook of codes [R, N]: its size, how many entries occur, and the perplexity of their use."""
    usage = []
    for row, size in zip(codes, sizes, strict=False):
        share = np.bincount(row, minlength=size) / max(1, len(row))
        used = share[share > 0]
        usage.append({"size": size, "used": len(used), "perplexity": float(np.exp(-(used * np.log(used)).sum()))})
    return usage
