"""Effects on speech against what they should change, measured independently."""

import numpy as np
import pytest

from mimo_audio.data import effects
from mimo_audio.errors import AudioError
from mimo_audio.pitch import track_f0

RATE = 24000


@pytest.fixture(scope="module")
def vowel() -> np.ndarray:
    """A second of a vowel at 150 Hz: harmonics under two formants, at 700 and 1200 Hz."""
    time = np.arange(RATE) / RATE
    wave = np.zeros(RATE)
    for harmonic in np.arange(150, 8000, 150.0):
        gain = sum(1 / (1 + ((harmonic - formant) / 80) ** 2) for formant in (700, 1200)) + 0.003
        wave += gain * np.sin(2 * np.pi * harmonic * time + harmonic)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def apply(wave, *chain, seed=0):
    return effects.apply(wave, RATE, chain, np.random.default_rng(seed))


def rms(wave):
    return float(np.sqrt(np.square(wave, dtype=np.float64).mean()))


def test_pitch_moves_the_fundamental_and_the_length(vowel):
    high = apply(vowel, ("pitch", 1.25))
    assert len(high) == pytest.approx(RATE / 1.25, abs=2)
    assert np.nanmedian(track_f0(high, RATE)) == pytest.approx(150 * 1.25, rel=0.01)


def test_a_whisper_has_the_formants_and_no_voice(vowel):
    whispered = apply(vowel, ("whisper", 0.5))
    assert len(whispered) == len(vowel)
    assert rms(whispered) == pytest.approx(0.5 * rms(vowel), rel=0.02)

    def at_the_fundamental(wave):
        return (np.abs(track_f0(wave, RATE) - 150) < 10).mean()

    assert at_the_fundamental(vowel) > 0.9
    assert at_the_fundamental(whispered) < 0.05
    spectrum = np.abs(np.fft.rfft(whispered)) ** 2  # bins of 1 Hz

    def band(low, high):
        return spectrum[low:high].mean()

    assert min(band(600, 800), band(1100, 1300)) > 5 * max(band(100, 300), band(2000, 4000))


def test_a_whisper_is_as_loud_from_frame_to_frame_as_the_speech_with_its_low_tones_softened(vowel):
    hiss = np.random.default_rng(1).standard_normal(RATE).astype(np.float32) * 0.02
    halves = np.split(apply(np.concatenate([vowel, hiss]), ("whisper", 1.0)), 2)
    assert rms(halves[0]) / rms(halves[1]) == pytest.approx(rms(np.diff(vowel)) / rms(np.diff(hiss)), rel=0.2)


@pytest.mark.parametrize("kind", effects.NOISES)
@pytest.mark.parametrize("decibels", [0, 10])
def test_noise_is_as_loud_as_asked(vowel, kind, decibels):
    quiet = 0.2 * vowel  # so that nothing is scaled down
    added = apply(quiet, ("noise", f"{kind}:{decibels}")) - quiet
    if kind != "crackle":  # whose clicks may reach full scale
        assert 20 * np.log10(rms(quiet) / rms(added)) == pytest.approx(decibels, abs=0.2)
    assert rms(added) > 0.2 * rms(quiet) * 10 ** (-decibels / 20)


def test_noises_have_their_colours():
    rng = np.random.default_rng(0)

    def slope(kind):  # of the power per octave, in dB, from 200 Hz to 6400 Hz
        power = np.abs(np.fft.rfft(effects.make_noise(kind, 8 * RATE, RATE, rng))) ** 2
        hertz = np.fft.rfftfreq(8 * RATE, 1 / RATE)
        octaves = [power[(hertz >= f) & (hertz < 2 * f)].mean() for f in 200 * 2.0 ** np.arange(5)]
        return np.polyfit(np.arange(5), 10 * np.log10(octaves), 1)[0]

    assert slope("white") == pytest.approx(0, abs=0.5)
    assert slope("pink") == pytest.approx(-3, abs=0.5)
    assert slope("brown") == pytest.approx(-6, abs=0.5)


def test_a_room_rings_on_for_its_time():
    click = np.zeros(RATE, np.float32)
    click[0] = 0.5
    echo = np.square(apply(click, ("room", 0.5)).astype(np.float64))
    decay = 10 * np.log10(np.cumsum(echo[::-1])[::-1] + 1e-15)  # Schroeder's curve
    start, end = (int(t * RATE) for t in (0.1, 0.3))
    per_second = (decay[end] - decay[start]) / 0.2
    assert -60 / per_second == pytest.approx(0.5, rel=0.15)
    assert echo[int(0.55 * RATE) :].max() < 1e-6


def test_a_room_keeps_length_and_loudness(vowel):
    there = apply(vowel, ("room", 0.4))
    assert len(there) == len(vowel)
    assert rms(there) == pytest.approx(rms(vowel), rel=0.01)


def test_effects_are_seeded_chained_and_never_clip(vowel):
    chain = (("whisper", 1.0), ("room", 0.3), ("noise", "rain:-10"))
    one, same, other = apply(vowel, *chain), apply(vowel, *chain), apply(vowel, *chain, seed=1)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.abs(one).max() <= 0.9501
    assert np.array_equal(apply(vowel), vowel)


@pytest.mark.parametrize("chain", [("reverse", 1), ("noise", "frogs:3")])
def test_unknown_effects_are_named(vowel, chain):
    with pytest.raises(AudioError, match="expected"):
        apply(vowel, chain)
