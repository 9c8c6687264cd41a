"""All metrics of a reconstruction in one result, measured piece by piece so that recordings of any length can be."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mimo_audio.evaluate import metrics
from mimo_audio.evaluate.metrics import Wave

PIECE_SECONDS = 20.0  # PESQ is made for utterances; a recording's score is the mean over its pieces


@dataclass(frozen=True)
class Quality:
    """Scores of a reconstruction; None where undefined or where the optional package is missing (see metrics)."""

    pesq_nb: float | None
    pesq_wb: float | None
    stoi: float | None
    mel_distance_db: float | None
    f0_error: float | None


def measure(pieces: Iterable[tuple[Wave, Wave]], sample_rate: int) -> Quality:
    """Quality over (reference [N], decoded [N]) pieces, aligned, at one rate.

    PESQ, STOI and mel distance are means weighted by the pieces' lengths; the F0 error is the median over all frames.
    """
    scores: dict[str, list[tuple[float, int]]] = {name: [] for name in _MEANS}
    f0_errors: list[np.ndarray] = []
    for reference, decoded in pieces:
        for name, metric in _MEANS.items():
            score = metric(reference, decoded, sample_rate)
            if score is not None:
                scores[name].append((score, len(reference)))
        f0_errors.append(metrics.f0_errors(reference, decoded, sample_rate))
    means = {name: _weighted_mean(found) for name, found in scores.items()}
    return Quality(**means, f0_error=metrics.median_f0_error(np.concatenate([np.empty(0), *f0_errors])))


_MEANS = {
    "pesq_nb": metrics.pesq_nb,
    "pesq_wb": metrics.pesq_wb,
    "stoi": metrics.stoi,
    "mel_distance_db": metrics.mel_distance,
}


def _weighted_mean(scores: list[tuple[float, int]]) -> float | None:
    weight = sum(length for _, length in scores)
    return sum(score * length for score, length in scores) / weight if weight else None
