"""Metrics: known values, order (worse sounds score worse), and None instead of a crash where they are undefined."""

import numpy as np
import pesq
import pystoi
import pytest
import soxr

from mimo_audio.evaluate import metrics
from mimo_audio.evaluate.quality import measure

RATE = 24000
ALL = (metrics.pesq_nb, metrics.pesq_wb, metrics.stoi, metrics.mel_distance, metrics.f0_error)


def noisy(wave: np.ndarray, level: float) -> np.ndarray:
    return wave + np.random.default_rng(1).normal(0, level, len(wave))


def test_bitrate_of_the_paper() -> None:
    assert metrics.bitrate([1024, 1024] + [128] * 6, 25) == pytest.approx(1.55)
    assert metrics.bitrate([1024] * 3, 12.5) == pytest.approx(0.375)


def test_mel_distance_of_a_gain_is_the_gain_in_db(speech: np.ndarray) -> None:
    loud = np.random.default_rng(0).normal(0, 0.1, RATE)
    assert metrics.mel_distance(loud, loud * 0.5, RATE) == pytest.approx(6.02, abs=0.01)
    assert metrics.mel_distance(speech, speech, RATE) == 0


def test_mel_distance_is_a_mean_over_frames_above_the_noise_of_files() -> None:
    """Half of the frames off by 6 dB are 3 dB (a root mean square would be 4.3); rounding is little, less is none."""
    loud = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    half = loud * np.where(np.arange(2 * RATE) < RATE, 1.0, 0.5)
    assert metrics.mel_distance(loud, half, RATE) == pytest.approx(3.01, abs=0.05)
    rounding = np.random.default_rng(1).uniform(-0.5, 0.5, RATE) / 2**15
    assert metrics.mel_distance(np.zeros(RATE), rounding, RATE) < 2
    assert metrics.mel_distance(np.zeros(RATE), rounding / 30, RATE) == 0


@pytest.mark.parametrize("metric", ALL)
def test_the_longer_signal_is_cut(metric, speech: np.ndarray) -> None:
    decoded, short = noisy(speech, 0.01), len(speech) * 2 // 3
    expected = metric(speech[:short], decoded[:short], RATE)
    assert metric(speech, decoded[:short], RATE) == pytest.approx(expected)
    assert metric(speech[:short], decoded, RATE) == pytest.approx(expected)


def test_f0_error_is_a_median_over_frames_enough() -> None:
    assert metrics.median_f0_error(np.array([0.01] * 7 + [0.5] * 4)) == pytest.approx(0.01)
    assert metrics.median_f0_error(np.full(10, 0.02)) == pytest.approx(0.02)
    assert metrics.median_f0_error(np.full(9, 0.02)) is None


def test_f0_error_of_a_known_shift() -> None:
    time = np.arange(RATE) / RATE

    def tone(f0: float) -> np.ndarray:
        return sum(np.sin(2 * np.pi * f0 * k * time) / k for k in range(1, 10)) * 0.2

    assert metrics.f0_error(tone(200), tone(210), RATE) == pytest.approx(0.05, abs=0.002)
    assert metrics.f0_error(tone(200), tone(100), RATE) == pytest.approx(0.5, abs=0.01)  # the 100 Hz hum


def test_identical_speech_is_best(speech: np.ndarray) -> None:
    assert metrics.pesq_nb(speech, speech, RATE) > 4.4
    assert metrics.pesq_wb(speech, speech, RATE) > 4.5
    assert metrics.stoi(speech, speech, RATE) == pytest.approx(1, abs=1e-6)
    assert metrics.f0_error(speech, speech, RATE) == 0


@pytest.mark.parametrize("metric", [metrics.pesq_nb, metrics.pesq_wb, metrics.stoi])
def test_noise_lowers_the_score(metric, speech: np.ndarray) -> None:
    scores = [metric(speech, noisy(speech, level), RATE) for level in (0.001, 0.01, 0.1)]
    assert scores == sorted(scores, reverse=True)


def test_pesq_and_stoi_are_the_packages_at_16_khz(speech: np.ndarray) -> None:
    """Wide-band PESQ at 16 kHz, narrow-band PESQ of the same, STOI, each as the package itself gives it."""
    decoded = noisy(speech, 0.01)
    pair = [soxr.resample(wave, RATE, 16000) for wave in (speech, decoded)]
    assert metrics.pesq_wb(speech, decoded, RATE) == pytest.approx(pesq.pesq(16000, *pair, "wb"))
    assert metrics.pesq_nb(speech, decoded, RATE) == pytest.approx(pesq.pesq(16000, *pair, "nb"))
    assert metrics.stoi(speech, decoded, RATE) == pytest.approx(pystoi.stoi(*pair, 16000))
    assert metrics.pesq_wb(*pair, 16000) == pytest.approx(metrics.pesq_wb(speech, decoded, RATE))


def test_noise_raises_the_mel_distance(speech: np.ndarray) -> None:
    distances = [metrics.mel_distance(speech, noisy(speech, level), RATE) for level in (0.001, 0.01, 0.1)]
    assert distances == sorted(distances)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("length", [0, 1, 300])
def test_too_short(metric, length: int) -> None:
    wave = np.full(length, 0.1)
    score = metric(wave, wave, RATE)
    assert score is None or (metric is metrics.mel_distance and score == 0)


@pytest.mark.parametrize("metric", [m for m in ALL if m is not metrics.mel_distance])
def test_silent_reference_is_undefined(metric, speech: np.ndarray) -> None:
    assert metric(np.zeros_like(speech), speech, RATE) is None


def test_silent_result(speech: np.ndarray) -> None:
    """A decoder that says nothing: PESQ and pitch have nothing to compare, intelligibility is nil."""
    silence = np.zeros_like(speech)
    assert metrics.pesq_nb(speech, silence, RATE) is None
    assert metrics.pesq_wb(speech, silence, RATE) is None
    assert metrics.stoi(speech, silence, RATE) == pytest.approx(0, abs=0.05)
    assert metrics.f0_error(speech, silence, RATE) is None
    assert metrics.mel_distance(speech, silence, RATE) > 10


def test_silent_pair_is_equal() -> None:
    assert metrics.mel_distance(np.zeros(RATE), np.zeros(RATE), RATE) == 0


def test_optional_packages(monkeypatch: pytest.MonkeyPatch, speech: np.ndarray) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    assert metrics.missing_packages() == ["pesq", "pystoi"]
    assert metrics.pesq_nb(speech, speech, RATE) is None
    assert metrics.stoi(speech, speech, RATE) is None
    assert metrics.mel_distance(speech, speech, RATE) == 0


def test_measure_of_one_piece_is_the_metrics(speech: np.ndarray) -> None:
    decoded = noisy(speech, 0.01)
    quality = measure([(speech, decoded)], RATE)
    assert quality.pesq_wb == pytest.approx(metrics.pesq_wb(speech, decoded, RATE))
    assert quality.stoi == pytest.approx(metrics.stoi(speech, decoded, RATE))
    assert quality.mel_distance_db == pytest.approx(metrics.mel_distance(speech, decoded, RATE))
    assert quality.f0_error == metrics.f0_error(speech, decoded, RATE)


def test_measure_weighs_pieces_by_length(speech: np.ndarray) -> None:
    short = speech[: len(speech) // 3]
    pieces = [(speech, speech * 0.5), (short, short * 0.9)]
    one, other = (metrics.mel_distance(*piece, RATE) for piece in pieces)
    expected = (one * len(speech) + other * len(short)) / (len(speech) + len(short))
    assert measure(pieces, RATE).mel_distance_db == pytest.approx(expected)


def test_measure_ignores_silent_pieces_where_undefined(speech: np.ndarray) -> None:
    silence = np.zeros(RATE)
    with_pause = measure([(speech, noisy(speech, 0.01)), (silence, silence)], RATE)
    assert with_pause.stoi == pytest.approx(metrics.stoi(speech, noisy(speech, 0.01), RATE))


def test_measure_of_nothing() -> None:
    quality = measure([], RATE)
    assert (quality.pesq_nb, quality.mel_distance_db, quality.f0_error) == (None, None, None)
