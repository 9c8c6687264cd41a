"""The rendered training data: seeded, varied, and its held-out part is held out. Needs no espeak-ng."""

import io
import itertools
import json
import random
import tarfile

import numpy as np
import pytest
import soundfile

from mimo_audio.data import synthetic
from mimo_audio.data.sentences import sentence
from mimo_audio.errors import AudioError


@pytest.fixture
def digits(tmp_path):
    """An archive like the Free Spoken Digit Dataset: digits 0 and 1, two speakers, seven takes of 0.1 s."""
    path = tmp_path / "digits.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for digit, speaker, index in itertools.product((1, 0), ("theo", "ann"), range(7)):
            buffer = io.BytesIO()
            soundfile.write(buffer, np.full(800, 0.1 * (index + 1)), 8000, format="WAV", subtype="FLOAT")
            info = tarfile.TarInfo(f"recordings/{digit}_{speaker}_{index}.wav")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    return path


def test_sentences_are_seeded_and_varied():
    first, second = random.Random(1), random.Random(1)
    texts = [sentence(first) for _ in range(300)]
    assert texts == [sentence(second) for _ in range(300)]
    assert len(set(texts)) > 290
    assert len({word for text in texts for word in text.split()}) > 500
    assert all(2 <= len(text.split()) <= 20 for text in texts)


def test_training_never_uses_a_held_out_voice():
    training = {line.voice.split("+")[1] for line in synthetic.training_lines(0, 2000)}
    held_out = {line.voice.split("+")[1] for line in synthetic.held_out_lines(0, 24)}
    assert len(training) > 50
    assert held_out == set(synthetic.HELD_OUT_VARIANTS)
    assert not training & held_out


def test_digits_hold_out_a_speaker_and_the_customary_takes(digits):
    splits = synthetic.read_digits(digits)
    assert set(splits["train"]) == {"ann"}
    assert sorted(round(float(wave[0]), 1) for _, wave in splits["train"]["ann"]) == [0.6, 0.6, 0.7, 0.7]  # takes 5, 6
    assert len(splits["held_out"]["ann"]) == 10
    assert len(splits["held_out"]["theo"]) == 14


def test_digit_strings_are_what_their_text_says(digits):
    speakers = synthetic.read_digits(digits)["train"]
    for text, voice, wave in synthetic.digit_strings(speakers, 0, 5, stretch=0):
        assert voice == "digits-ann"
        assert set(text.split()) <= {"zero", "one"}
        assert len(wave) == pytest.approx(len(text.split()) * (800 + 400) * 3, abs=10)
        assert np.abs(wave).max() == pytest.approx(0.6, abs=1e-3)


def test_a_larger_held_out_split_begins_with_the_smaller_one(digits):
    speakers = synthetic.read_digits(digits)["held_out"]
    few, many = (list(synthetic.digit_strings(speakers, 0, count, stretch=0)) for count in (3, 9))
    for one, other in zip(few, many[:3], strict=True):
        assert one[:2] == other[:2]
        assert np.array_equal(one[2], other[2])
    assert list(synthetic.held_out_lines(0, 5)) == list(synthetic.held_out_lines(0, 9))[:5]


def test_a_split_is_files_and_a_manifest(tmp_path):
    items = [("one", "a", np.full(24000, 0.5, np.float32)), ("two", "b", np.full(12000, 0.25, np.float32))]
    assert synthetic.write_split(tmp_path / "split", iter(items)) == pytest.approx(1.5 / 60)
    lines = [json.loads(line) for line in (tmp_path / "split" / "manifest.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == ["one", "two"]
    assert soundfile.info(tmp_path / "split" / lines[1]["audio"]).frames == 12000


def test_a_missing_espeak_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match="espeak-ng is not installed"):
        synthetic.speak(synthetic.Line("hello", "en-us+f1", 150, 50))
