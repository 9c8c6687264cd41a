"""How far few recordings can be trusted: 95% intervals by the bootstrap (Efron, 1979), percentile method.

Items (recordings, as a rule) are drawn again and again with replacement, always with the same seed. What belongs to an
item stays together: scores of two systems on the same recording are drawn in pairs, so that what is hard for both does
not blur their difference.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
COVERED = (2.5, 97.5)  # percentiles: 95% of the resamples lie between
AT_ONCE = 1 << 24  # numbers of the drawn rows that are in memory together

Array = NDArray[np.float64]


def interval(rows: ArrayLike, statistic: Callable[[Array], Array]) -> list[float] | None:
    """The 95% interval of a statistic of sums: rows [N, K] of N items, statistic of sums [R, K] -> [R].

    None for fewer than two items, or where the statistic is undefined (NaN) in a resample.
    """
    values = np.asarray(rows, np.float64)
    if len(values) < 2:
        return None
    rng = np.random.default_rng(0)
    at_once = max(1, AT_ONCE // values.size)
    sums = [
        values[rng.integers(len(values), size=(min(at_once, RESAMPLES - first), len(values)))].sum(1)
        for first in range(0, RESAMPLES, at_once)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = statistic(np.concatenate(sums))
    return np.percentile(found, COVERED).tolist() if np.isfinite(found).all() else None


def rate(rows: ArrayLike) -> tuple[float | None, list[float] | None]:
    """The ratio of two sums, rows [N, (numerator, denominator)], and its interval; None where undefined."""
    values = np.asarray(rows, np.float64).reshape(-1, 2)
    above, below = values.sum(0)
    return (float(above / below) if below else None), interval(values, lambda sums: sums[:, 0] / sums[:, 1])


def mean(values: ArrayLike) -> tuple[float | None, list[float] | None]:
    """The mean of values [N] and its interval; None without values. Paired systems: the mean of their differences."""
    column = np.asarray(values, np.float64).reshape(-1, 1)
    return rate(np.hstack([column, np.ones_like(column)]))
