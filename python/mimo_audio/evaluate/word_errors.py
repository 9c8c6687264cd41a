"""Word error rates of originals and of their resynthesis, and how far few words can be trusted: bootstrap intervals."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_audio.errors import MimoError

RESAMPLES = 2000
COVERED = (2.5, 97.5)  # percentiles: 95% of the resamples lie between


@dataclass(frozen=True)
class Transcripts:
    """What is said in a recording, and what a recogniser makes of it and of its resynthesis."""

    reference: str
    original: str
    decoded: str


def require_jiwer() -> None:
    """Raises MimoError if word error rates cannot be computed here; meant for before long work."""
    if find_spec("jiwer") is None:
        raise MimoError("word error rates need jiwer: pip install jiwer")


def word_error_rates(files: Sequence[Transcripts]) -> dict[str, Any]:
    """Words, word error rate (wrong words per word, all files together) of originals and decoded, and the difference.

    Each rate comes with its 95% interval, from files drawn again and again with replacement (seeded), originals and
    decoded in pairs, so that what is hard to hear in both does not blur the difference. Case and punctuation do not
    count. Values are None without words, intervals also with a single file.
    """
    counts = np.array([row for one in files if (row := _errors(one))[0]], np.float64).reshape(-1, 3)
    words, original, decoded = counts.sum(0)
    columns = {"wer_original": original, "wer_decoded": decoded, "wer_difference": decoded - original}
    rates: dict[str, Any] = {"words": int(words)}
    rates |= {name: float(errors / words) if words else None for name, errors in columns.items()}
    return rates | {f"{name}_95": interval for name, interval in zip(columns, _intervals(counts), strict=True)}


def _errors(transcripts: Transcripts) -> tuple[int, int, int]:
    """Words of the text, and wrong ones (substituted, deleted or inserted) in both hypotheses."""
    import jiwer

    text = _normalise(transcripts.reference)
    if not text:
        return 0, 0, 0
    found = [jiwer.process_words(text, _normalise(one)) for one in (transcripts.original, transcripts.decoded)]
    first, second = (one.substitutions + one.deletions + one.insertions for one in found)
    return len(text.split()), first, second


def _intervals(counts: NDArray[np.float64]) -> list[list[float] | None]:
    """Of the three rates that counts [files, (words, wrong in originals, wrong in decoded)] give."""
    if len(counts) < 2:
        return [None] * 3
    drawn = np.random.default_rng(0).integers(len(counts), size=(RESAMPLES, len(counts)))
    words, original, decoded = np.moveaxis(counts[drawn].sum(1), 1, 0)
    return [np.percentile(rate / words, COVERED).tolist() for rate in (original, decoded, decoded - original)]


def _normalise(text: str) -> str:
    return " ".join("".join(" " if c in string.punctuation else c for c in text.lower()).split())
