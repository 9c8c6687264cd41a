"""Speaker similarity and codebook usage by hand; evaluators by name."""

import random
import re
import sys
from importlib.resources import files
from types import ModuleType

import numpy as np
import pytest
import soundfile
import soxr

from mimo_audio.data.sentences import command
from mimo_audio.errors import MimoError
from mimo_audio.evaluate import recognisers, speakers
from mimo_audio.evaluate.recognisers import commands, digits
from mimo_audio.evaluate.speech import ask, codebook_usage, cosine, load_evaluator


def test_cosine():
    assert cosine(np.array([1.0, 0]), np.array([1.0, 1])) == pytest.approx(0.5**0.5)
    assert cosine(np.array([[3.0, 0]]), np.array([[5.0, 0]])) == pytest.approx(1)
    assert cosine(np.zeros(2), np.ones(2)) is None


def test_codebook_usage():
    usage = codebook_usage(np.array([[0, 0, 1, 1], [2, 2, 2, 2]]), (4, 8, 8))
    assert usage == [
        {"size": 4, "used": 2, "perplexity": pytest.approx(2)},
        {"size": 8, "used": 1, "perplexity": pytest.approx(1)},
    ]


def test_codebook_usage_counts_rare_entries():
    (usage,) = codebook_usage(np.array([[0] * 7 + [3]]), (4,))
    shares = np.array([7 / 8, 1 / 8])
    assert usage == {"size": 4, "used": 2, "perplexity": pytest.approx(np.prod(shares**-shares))}


def test_the_digit_recogniser_mirrors_the_band_at_4_khz(monkeypatch):
    """A tone of 1 kHz is heard with its equal at 7 kHz, whatever the rate it comes at."""
    heard = []
    monkeypatch.setattr(recognisers, "_digits", lambda: None)
    monkeypatch.setattr(recognisers, "_hear", lambda decoder, signal: heard.append(signal) or "")
    for rate in (8000, 24000):
        digits(0.1 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate), rate)
        spectrum = np.abs(np.fft.rfft(heard[-1] * np.hanning(len(heard[-1]))))
        assert len(heard[-1]) == 16000
        assert set(np.argsort(spectrum)[-2:]) == {1000, 7000}
        assert spectrum[7000] == pytest.approx(spectrum[1000], rel=1e-3)


def test_a_judge_is_found_by_name(monkeypatch):
    monkeypatch.setattr("mimo_audio.evaluate.speech.ask", lambda *_: "")
    assert load_evaluator("--recogniser", "digits") is digits
    assert load_evaluator("--recogniser", "mimo_audio.evaluate.recognisers:digits") is digits


@pytest.mark.parametrize("name", ["nowhere:f", "math:nothing", "math", "math:pi", ""])
def test_a_judge_that_is_none_is_an_error(name):
    with pytest.raises(MimoError, match="--speaker: "):
        load_evaluator("--speaker", name)


def test_the_digit_recogniser_hears_nothing_in_silence_and_noise():
    noise = np.random.default_rng(0).normal(0, 1e-3, 24000).astype(np.float32)
    assert [digits(wave, 24000) for wave in (noise, noise * 0, noise[:0])] == ["", "", ""]


@pytest.mark.parametrize("rate", [8000, 24000, 44100])
def test_the_digit_recogniser_hears_digits_at_any_rate(rate):
    """The shipped clip says 3 1 4 1 5 9 2 6, in telephone band; the last is often recognised as an eight."""
    with (files("mimo_audio") / "assets" / "digits.wav").open("rb") as file:
        wave, own = soundfile.read(file)
    found = digits(soxr.resample(wave, own, rate) if rate != own else wave, rate).split()
    assert found[:7] == ["three", "one", "four", "one", "five", "nine", "two"]


def test_the_recogniser_of_commands_has_words_for_every_form():
    decoder = recognisers._commands()
    rng = random.Random(0)
    unknown = {"yellow-hammer", "yoghurt"}  # to the dictionary
    words = {word for _ in range(50) for word in re.findall(r"[a-z'-]+", command(rng))} - unknown
    assert "please" in words
    assert all(map(decoder.lookup_word, words))
    assert commands(np.zeros(24000, np.float32), 24000) == ""


@pytest.mark.parametrize("name", ["digits", "commands", "resemblyzer"])
def test_a_built_in_judge_without_its_package_says_which(name, monkeypatch):
    recognisers._digits.cache_clear()
    recognisers._commands.cache_clear()
    speakers._load.cache_clear()
    for package in ("pocketsphinx", "resemblyzer"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MimoError, match="pip install"):
        load_evaluator("--evaluator", name)


def test_a_judge_that_fails_is_an_error_before_the_work(monkeypatch):
    module = ModuleType("some_judges")
    module.broken = lambda wave, rate: 1 / 0
    monkeypatch.setitem(sys.modules, "some_judges", module)
    with pytest.raises(MimoError, match="--speaker: the evaluator failed: ZeroDivisionError"):
        load_evaluator("--speaker", "some_judges:broken")
    assert ask("--speaker", lambda wave, rate: rate, np.zeros(1), 5) == 5
