"""Voices: names, casts, what is held out; and the real engines where they are installed."""

import json
import random
import tarfile
from typing import Any

import numpy as np
import pytest

from mimo_audio.data import voices
from mimo_audio.data.voices import VoiceError, choose, is_held_out, speak
from mimo_audio.data.voices.cast import Cast, possible_rate
from mimo_audio.data.voices.espeak import Espeak
from mimo_audio.data.voices.flite import Flite
from mimo_audio.data.voices.kokoro import Kokoro
from mimo_audio.evaluate import recognisers
from mimo_audio.pitch import track_f0
from mimo_audio.tasks import voice as mimo_voice

COMMAND = "turn off the kitchen light"
NATURAL = ("hibari/heart", "kokoro/af_heart", "kokoro/bf_emma:0.5+bm_george:0.5")
ROBOTIC = ("espeak/en-us+f3:60", "flite/slt")


def engine(name: str) -> Any:
    try:
        return voices.engine(name)
    except VoiceError as error:
        pytest.skip(str(error))


def say(voice: str, text: str = "good morning", rate: float = 1.0, seed: int = 0) -> tuple[np.ndarray, int]:
    engine(voice.partition("/")[0])
    return speak(text, voice, rate, seed)


@pytest.mark.parametrize("voice", [*NATURAL, *ROBOTIC])
def test_speech_is_reproducible_and_as_fast_as_asked(voice):
    wave, sample_rate = say(voice)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert 0.05 < np.abs(wave).max() <= 1
    assert np.array_equal(wave, say(voice)[0])
    assert np.isfinite(track_f0(wave, sample_rate)).mean() > 0.2  # voiced
    slow, fast = (len(say(voice, rate=rate)[0]) / len(wave) for rate in (0.8, 1.25))
    assert 1.1 < slow < 1.4
    assert 0.7 < fast < 0.92


@pytest.mark.parametrize("voice", NATURAL)
def test_natural_voices_say_the_text(voice):
    pytest.importorskip("pocketsphinx")
    assert recognisers.commands(*say(voice, COMMAND + ".")) == COMMAND


def test_the_seed_is_that_of_hibaris_noise():
    wave, _ = say("hibari/heart")
    other, _ = say("hibari/heart", seed=1)
    assert wave.shape == other.shape
    assert 0 < np.abs(wave - other).max() < 0.5


def test_a_mixture_is_a_new_speaker_between_two():
    kokoro = engine("kokoro")
    half = kokoro._style("af_heart:0.5+am_adam:0.5")
    assert np.allclose(half, (kokoro._style("af_heart") + kokoro._style("am_adam")) / 2)
    pitches = [
        np.nanmedian(track_f0(*say(f"kokoro/{name}"))) for name in ("am_adam", "af_heart:0.5+am_adam:0.5", "af_heart")
    ]
    assert pitches == sorted(pitches)


@pytest.mark.parametrize("stop", [".", ""])
def test_a_long_text_is_read_in_pieces_and_nothing_is_lost(stop):
    kokoro = engine("kokoro")
    sentence = f"This is a sentence of a long story and it goes on{stop}"
    (one,) = kokoro._ids(sentence, "a")
    pieces = kokoro._ids(" ".join([sentence] * 18), "a")
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 508
    assert sum(map(len, pieces)) == pytest.approx(18 * (len(one) + 1), abs=18 + len(pieces))


def test_espeak_takes_pitch_and_texts_that_look_like_options():
    low, high = (np.nanmedian(track_f0(*say(f"espeak/en-us+m3:{pitch}"))) for pitch in (10, 90))
    assert high > 1.3 * low
    assert len(say("espeak/en-us+m3", "--help")[0]) > 5000


def test_mandarin():
    pytest.importorskip("jieba")
    short, long = (engine("kokoro")._ids(text, "z")[0] for text in ("你好", "今天天气很好，我们去公园吧。"))
    assert 4 <= len(short) < len(long) / 3


def test_kokoro_without_its_voices_says_what_to_do(tmp_path):
    with pytest.raises(VoiceError, match=r"npm pack kokoro-js@\S+ --pack-destination"):
        Kokoro(tmp_path)
    (tmp_path / "kokoro-js-1.tgz").write_bytes(b"no archive")
    with pytest.raises(VoiceError, match=r"kokoro-js-1\.tgz: expected the archive"):
        Kokoro(tmp_path)
    with tarfile.open(tmp_path / "kokoro-js-1.tgz", "w:gz"):
        pass
    with pytest.raises(VoiceError, match=r"no voices/\*\.bin"):
        Kokoro(tmp_path)


@pytest.mark.parametrize(("kind", "program"), [(Espeak, "espeak-ng"), (Flite, "flite")])
def test_a_missing_program_is_one_clear_error(monkeypatch, tmp_path, kind, program):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VoiceError, match=rf"{program} is not installed.*Debian package {program}"):
        kind()


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        ("tones", "expected ENGINE/VOICE"),
        ("organ/bell", "expected an engine of kokoro, hibari"),
        ("tones/drum", "bell, flute, horn"),
        ("espeak/no such voice", "pitch 0 to 99"),
        ("flite/nobody", "flite has"),
        ("hibari/nobody", "hibari has heart"),
        ("kokoro/nobody", "kokoro has"),
        ("kokoro/af_heart:x", "expected weights"),
        ("kokoro/ff_siwis", "English"),
    ],
)
def test_bad_voices_are_named(tones, voice, message):
    with pytest.raises(VoiceError, match=message):
        say(voice) if "/" in voice and not voice.startswith("organ") else speak("hello", voice)


@pytest.mark.parametrize(
    ("text", "rate", "message"),
    [("hi", 3.0, "0.5 to 2 times"), (" ", 1.0, "something to say"), ("unspeakable", 1.0, "said nothing")],
)
def test_bad_requests_are_named(tones, text, rate, message):
    with pytest.raises(VoiceError, match=message):
        speak(text, "tones/bell", rate)


def test_held_out_voices_are_never_drawn_for_training(tones):
    requests = ["tones", *(name for name in voices.installed()[0] if name != "tones")]
    cast = Cast.of(requests, mixtures=0.5)
    rng = random.Random(0)
    drawn = {cast.draw(rng) for _ in range(4000)}
    assert {"tones/bell", "tones/flute"} <= drawn
    assert not any(map(is_held_out, drawn))
    held_out = Cast.of([name for name in requests if name != "hibari"], mixtures=0.5, held_out=True)
    assert all(is_held_out(held_out.draw(rng)) for _ in range(500))


def test_a_mixture_with_a_held_out_part_is_held_out():
    assert is_held_out("kokoro/af_heart:0.3+af_sky:0.7")
    assert not is_held_out("kokoro/af_heart:0.3+am_adam:0.7")
    assert is_held_out("espeak/en-gb+f5:20")
    assert not is_held_out("mimo/af_sky@af_sky.wav")


def test_mixtures_are_of_one_accent_and_kind():
    engine("kokoro")
    cast, rng = Cast.of(["kokoro"], mixtures=1.0), random.Random(1)
    for _ in range(300):
        first, second = (part.partition(":")[0] for part in cast.draw(rng).removeprefix("kokoro/").split("+"))
        assert first[:2] == second[:2]
        assert first != second


def test_shares_are_those_of_groups(tones):
    cast, rng = Cast.of(["tones=3", "hibari"]), random.Random(2)
    bells = sum(cast.draw(rng).startswith("tones/") for _ in range(2000))
    assert bells / 2000 == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("requests", [[], ["tones=0"], ["tones=x"], ["tones/horn"], ["tones/x*"], ["nothing"]])
def test_bad_casts_are_refused(tones, requests):
    with pytest.raises(VoiceError, match="voice"):
        Cast.of(requests)


def test_a_rate_that_an_engine_lacks_becomes_the_nearest(tones):
    assert [possible_rate("tones/bell", rate) for rate in (0.1, 1.3, 9.0)] == [0.5, 1.3, 2.0]
    assert possible_rate("mimo/nano", 1.2) == 1.0


def test_choose_knows_voices_engines_and_patterns(tones):
    assert choose(["tones"]) == choose(["tones/*"]) == choose(["tones/bell", "tones"]) == ["tones/bell", "tones/flute"]
    assert choose(["tones"], held_out=True) == ["tones/horn"]
    assert choose(["mimo/runs/nano@voice=1.wav"]) == ["mimo/runs/nano@voice=1.wav"]
    assert Cast.of(["mimo/runs/nano@voice=1.wav"]).draw(random.Random()) == "mimo/runs/nano@voice=1.wav"


def test_any_mimo_audio_model_is_a_voice(monkeypatch, tmp_path):
    asked = {}

    class Model:
        def speak(self, text, voice, **options):
            asked.update(text=text, voice=voice, **options)
            stats = type("Stats", (), {"ended": text != "on and on"})
            wave = type("Wave", (), {"numpy": lambda self: np.full(2400, 0.5, np.float32)})
            return type("Speech", (), {"wave": wave(), "sample_rate": 24000, "stats": stats})

    monkeypatch.setattr(mimo_voice, "_load", lambda folder: asked.update(folder=folder) or Model())
    wave, sample_rate = speak("two words", "mimo/runs/nano@a/b.wav", seed=5)
    assert len(wave) == 2400
    assert sample_rate == 24000
    assert json.dumps({**asked, "voice": str(asked["voice"])}, sort_keys=True) == json.dumps(
        {"folder": "runs/nano", "max_seconds": 5.0, "seed": 5, "text": "two words", "voice": "a/b.wav"}
    )
    with pytest.raises(VoiceError, match="did not end within 6 s"):
        speak("on and on", "mimo/nano")
    assert asked["voice"] is None
