"""Bootstrap intervals against scipy's, against theory, and where they are undefined."""

import numpy as np
import pytest

from mimo_audio.evaluate import bootstrap


def test_a_mean_as_scipy_has_it() -> None:
    """Another program's draws: the ends agree within the spread between seeds."""
    stats = pytest.importorskip("scipy.stats")  # comes with pystoi
    values = np.random.default_rng(1).gamma(2.0, size=80)
    found, (low, high) = bootstrap.mean(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=2).confidence_interval
    assert found == pytest.approx(values.mean())
    spread = (high - low) / 2
    assert low == pytest.approx(theirs.low, abs=0.1 * spread)
    assert high == pytest.approx(theirs.high, abs=0.1 * spread)


def test_a_rate_as_scipy_has_it() -> None:
    """Wrong words per word: both sums are over the same draw of recordings."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    words = rng.integers(1, 15, 60)
    rows = np.stack([rng.binomial(words, 0.3), words], 1)
    found, (low, high) = bootstrap.rate(rows)
    theirs = stats.bootstrap(
        (rows[:, 0], rows[:, 1]),
        lambda wrong, of, axis: wrong.sum(axis) / of.sum(axis),
        paired=True,
        n_resamples=20000,
        method="percentile",
        rng=4,
    ).confidence_interval
    assert found == pytest.approx(rows[:, 0].sum() / rows[:, 1].sum())
    assert (low, high) == (pytest.approx(theirs.low, abs=0.008), pytest.approx(theirs.high, abs=0.008))


def test_an_interval_of_a_mean_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap.mean(rng.normal(1.0, 2.0, 50))[1]
        covered += low <= 1.0 <= high
    assert 180 <= covered <= 198


def test_the_same_rows_give_the_same_interval_in_any_number_of_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).random((7, 2))
    at_once = bootstrap.rate(rows)
    assert bootstrap.rate(rows) == at_once
    monkeypatch.setattr(bootstrap, "AT_ONCE", 14 * 3)
    assert bootstrap.rate(rows)[1] == pytest.approx(at_once[1])


def test_where_it_is_undefined() -> None:
    assert bootstrap.mean([]) == (None, None)
    assert bootstrap.mean([2.0]) == (2.0, None)
    assert bootstrap.rate([(1, 0), (1, 0)]) == (None, None)
    assert bootstrap.rate([(1, 0), (1, 2)]) == (1.0, None)  # some draws have no denominator
