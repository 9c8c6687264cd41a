"""What judges of speech make of a resynthesis, and how much of the codebooks it uses.

A judge is any function of a wave [N] (float32, mono) and its sample rate, named "MODULE:FUNCTION": a recogniser returns
text, a speaker judge an embedding [D]. They are chosen by the user, as good ones are large and come with their models.
"""

import string
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import Wave

Judge = Callable[[Wave, int], Any]


def load_judge(option: str, name: str) -> Judge:
    """The function "MODULE:FUNCTION". Raises MimoError that names the option."""
    module, _, function = name.partition(":")
    try:
        judge = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise MimoError(f"{option}: cannot find {name!r} (MODULE:FUNCTION): {error}") from error
    if not callable(judge):
        raise MimoError(f"{option}: expected a function, got {name!r}, which is none")
    return judge


def require_jiwer() -> None:
    """Raises MimoError if word error rates cannot be computed here; meant for before long work."""
    if find_spec("jiwer") is None:
        raise MimoError("word error rates need jiwer: pip install jiwer")


def word_error_rate(texts: Sequence[str], heard: Sequence[str]) -> float | None:
    """Wrong words per word of the texts, all together; case and punctuation do not count. None without words."""
    import jiwer

    pairs = [(_words(text), _words(guess)) for text, guess in zip(texts, heard, strict=True)]
    pairs = [pair for pair in pairs if pair[0]]
    return float(jiwer.wer([text for text, _ in pairs], [guess for _, guess in pairs])) if pairs else None


def _words(text: str) -> str:
    return " ".join("".join(" " if c in string.punctuation else c for c in text.lower()).split())


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
