"""What evaluators of speech make of a wave, and how much of the codebooks its codes use.

An evaluator is any function of a wave [N] (float32, mono) and its sample rate: a recogniser returns text, a speaker
encoder an embedding [D], a judge of quality a number. Built-in ones have short names, "whisper=FOLDER" is a Whisper of
your own; any other is named "MODULE:FUNCTION".
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import MEL_RATE, Wave
from mimo_audio.evaluate.recognisers import whisper_from

Evaluator = Callable[[Wave, int], Any]

RECOGNISERS = {
    name: f"mimo_audio.evaluate.recognisers:{name}" for name in ("whisper", "pocketsphinx", "digits", "commands")
}
SPEAKERS = {"resemblyzer": "mimo_audio.evaluate.speakers:resemblyzer"}
QUALITY = {"dnsmos": "mimo_audio.evaluate.mos:dnsmos"}
BUILT_IN = {"--recogniser": RECOGNISERS, "--speaker": SPEAKERS, "--quality": QUALITY}
WHISPER = "whisper="  # and a folder


def load_evaluator(option: str, name: str) -> Evaluator:
    """The evaluator of this name, tried on a second of faint noise. Raises MimoError that names the option."""
    if option == "--recogniser" and name.startswith(WHISPER):
        evaluator: Evaluator = whisper_from(Path(name.removeprefix(WHISPER)))
    else:
        evaluator = _find(option, name)
    if not callable(evaluator):
        raise MimoError(f"{option}: expected a function, got {name!r}, which is none")
    noise = np.random.default_rng(0).normal(0, 1e-3, MEL_RATE).astype(np.float32)
    ask(option, evaluator, noise, MEL_RATE)
    return evaluator


def _find(option: str, name: str) -> Evaluator:
    built_in = BUILT_IN[option]
    module, _, function = built_in.get(name, name).partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(built_in)
        raise MimoError(f"{option}: cannot find {name!r} (expected {known} or MODULE:FUNCTION): {error}") from error


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
