"""Word and character error rates, and of originals beside their resynthesis, with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from mimo_audio.errors import MimoError
from mimo_audio.evaluate import bootstrap
from mimo_audio.evaluate.normalise import normalise, readings


@dataclass(frozen=True)
class Transcripts:
    """What is said in a recording, and what a recogniser makes of it and of its resynthesis."""

    reference: str
    original: str
    decoded: str


@dataclass(frozen=True)
class Errors:
    """Words and characters (blanks aside) of a text, and how many of a hypothesis are wrong.

    Wrong is what is substituted, deleted or inserted, so that there may be more of it than of the text.
    """

    words: int
    wrong_words: int
    characters: int
    wrong_characters: int


def require_jiwer() -> None:
    """Raises MimoError if word error rates cannot be computed here; meant for before long work."""
    if find_spec("jiwer") is None:
        raise MimoError("word error rates need jiwer: pip install jiwer")


def count_errors(reference: str, hypothesis: str) -> Errors:
    """Errors of a hypothesis after normalisation; its numerals count in the reading that fits the reference best."""
    import jiwer

    text = normalise(reference)
    letters = text.replace(" ", "")
    heard = readings(hypothesis)
    if not text:
        return Errors(0, min(len(one.split()) for one in heard), 0, min(len(one.replace(" ", "")) for one in heard))
    words = [_wrong(jiwer.process_words(text, one)) for one in heard]
    characters = [_wrong(jiwer.process_characters(letters, one.replace(" ", ""))) for one in heard]
    return Errors(len(text.split()), min(words), len(letters), min(characters))


def word_error_rates(files: Sequence[Transcripts]) -> dict[str, Any]:
    """Words, word error rate (wrong words per word, all files together) of originals and decoded, and the difference.

    Each rate comes with its 95% interval, from files drawn again and again with replacement (seeded), originals and
    decoded in pairs, so that what is hard to hear in both does not blur the difference. Files whose text has no words
    do not count. Values are None without words, intervals also with a single file.
    """
    pairs = [(count_errors(one.reference, one.original), count_errors(one.reference, one.decoded)) for one in files]
    counts = np.array([(a.words, a.wrong_words, b.wrong_words) for a, b in pairs if a.words], np.float64).reshape(-1, 3)
    words, original, decoded = counts.T
    columns = {"wer_original": original, "wer_decoded": decoded, "wer_difference": decoded - original}
    rates = {name: bootstrap.rate(np.stack([wrong, words], 1)) for name, wrong in columns.items()}
    values: dict[str, Any] = {"words": int(words.sum())} | {name: value for name, (value, _) in rates.items()}
    return values | {f"{name}_95": interval for name, (_, interval) in rates.items()}


def _wrong(found: Any) -> int:
    return found.substitutions + found.deletions + found.insertions
