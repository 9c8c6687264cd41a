"""The F0 tracker against signals of known pitch."""

import numpy as np
import pytest

from mimo_audio.pitch import track_f0

RATE = 24000


def voice(f0: np.ndarray, rate: int = RATE) -> np.ndarray:
    """A buzz with harmonics that fall by 6 dB per octave, at the instantaneous pitch f0 [N]."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    return sum(np.sin(k * phase) / k for k in range(1, int(rate / 2 / f0.max()))) * 0.2


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
@pytest.mark.parametrize("f0", [80.0, 110.0, 200.0, 333.0, 480.0])
def test_constant_pitch(f0: float, rate: int) -> None:
    track = track_f0(voice(np.full(rate, f0), rate), rate)
    assert len(track) == 97  # every 10 ms, as long as a 40 ms frame fits
    assert np.allclose(track, f0, rtol=0.01)


def test_follows_a_glide() -> None:
    f0 = np.linspace(120, 300, 2 * RATE)
    track = track_f0(voice(f0), RATE)
    centres = np.arange(len(track)) * 240 + 480
    assert np.allclose(track, f0[centres], rtol=0.02)


def test_missing_fundamental() -> None:
    """The period, not the lowest partial, is the pitch."""
    time = np.arange(RATE) / RATE
    wave = sum(np.sin(2 * np.pi * 150 * k * time) for k in (3, 4, 5, 6)) * 0.1
    assert np.allclose(track_f0(wave, RATE), 150, rtol=0.01)


def test_noise_and_silence_are_unvoiced() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    assert np.isnan(track_f0(noise, RATE)).mean() > 0.97
    assert np.isnan(track_f0(np.zeros(RATE), RATE)).all()
    assert np.isnan(track_f0(np.full(RATE, 0.5), RATE)).all()


@pytest.mark.parametrize(("noise", "voiced"), [(0.5, True), (1.2, False)])
def test_a_frame_is_voiced_if_most_of_it_repeats(noise: float, voiced: bool) -> None:
    """A periodic share of 0.8 of the power is a voice, one of 0.4 is none: the threshold is 0.6."""
    buzz = voice(np.full(RATE, 200.0))
    hiss = np.random.default_rng(0).normal(0, noise * buzz.std(), RATE)
    assert (np.isnan(track_f0(buzz + hiss, RATE)).mean() < 0.1) == voiced
    assert (np.isnan(track_f0(buzz + hiss, RATE)).mean() > 0.9) != voiced


def test_pauses_are_unvoiced() -> None:
    wave = voice(np.full(RATE, 200.0))
    wave[RATE // 2 :] *= 1e-3
    track = track_f0(wave, RATE)
    assert np.allclose(track[:45], 200, rtol=0.01)
    assert np.isnan(track[52:]).all()


@pytest.mark.parametrize("length", [0, 1, 959])
def test_too_short_for_a_frame(length: int) -> None:
    assert track_f0(np.ones(length), RATE).shape == (0,)
