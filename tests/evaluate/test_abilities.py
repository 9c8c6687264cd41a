"""Scores of abilities by hand, right answers, distances of conversions, and what judges hear."""

from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mimo_audio.errors import MimoError
from mimo_audio.evaluate import abilities
from mimo_audio.evaluate.answers import is_right
from mimo_audio.evaluate.distances import distance
from mimo_audio.evaluate.judges import Heard, Judges, similarity

VOICES = Path(__file__).parents[1] / "golden" / "voices"


WHISPER = {"words": 4, "wrong_words whisper": 1, "original wrong_words whisper": 1}


def item(**values: object) -> dict:
    return {"sample": "m:1", "ended": True, "failed": None, **values}


# Scores


def test_transcription() -> None:
    """Five words, two wrong; Whisper has one wrong, so the difference is 1/5. One answer ran away, one is none."""
    items = [
        item(words=2, wrong_words=2, characters=8, wrong_characters=4, **{"wrong_words whisper": 1}, ended=False),
        item(words=3, wrong_words=0, characters=12, wrong_characters=1, **{"wrong_words whisper": 0}, failed="none"),
    ]
    scores = abilities.transcription_scores(items, ["whisper"])
    assert (scores["items"], scores["runaways"], scores["no answer"]) == (2, 1, 1)
    assert (scores["wer"], scores["cer"], scores["wer whisper"]) == (0.4, 0.25, 0.2)
    assert scores["wer difference whisper"] == pytest.approx(0.2)
    assert scores["wer_95"] == [0.0, 1.0]  # of two items each may be drawn twice
    assert "0.400 [0.000, 1.000]" in abilities.table("transcription", {"row": scores}, ["whisper"])


def test_speaking() -> None:
    items = [
        item(**WHISPER, **{"length ratio": 1.1, "similarity": 0.9, "quality": 3.0, "pairs": 4, "nearer pairs": 3}),
        item(**WHISPER, **{"length ratio": 0.9, "similarity": 0.5, "pairs": 2, "nearer pairs": 2}),
        item(**WHISPER, **{"length ratio": 1.0}),
    ]
    items[1]["wrong_words whisper"], items[2]["wrong_words whisper"] = 3, 0
    scores = abilities.speech_scores(items, ["whisper"])
    assert scores["wer whisper"] == pytest.approx(4 / 12)
    assert scores["wer original whisper"] == pytest.approx(3 / 12)
    assert scores["wer difference whisper"] == pytest.approx(1 / 12)
    assert (scores["similarity"], scores["quality"], scores["quality_95"]) == (0.7, 3.0, None)
    assert scores["nearer"] == pytest.approx(5 / 6)
    table = abilities.table("speaking", {"row": scores}, ["whisper"])
    assert "83.3%" in table
    assert "to others" not in table  # a column that no row has


def test_the_gain_of_right_examples_is_paired_by_sample() -> None:
    """Samples are hard or easy for both: distances vary, their difference does not. Order does not count."""
    right = [item(sample=f"m:{i}", distance=float(i), **{"length ratio": 1 + i / 10}) for i in range(4)]
    wrong = [item(sample=f"m:{i}", distance=i + 0.5, **{"length ratio": 1.0}) for i in (3, 1, 0, 2)]
    scores = abilities.conversion_scores(right, wrong, [])
    assert (scores["items"], scores["distance"], scores["distance wrong"]) == (4, 1.5, 2.0)
    assert (scores["gain"], scores["gain_95"]) == (0.5, [0.5, 0.5])
    assert scores["length within"] == 0.5  # 1.0 and 1.1 of 1.0, 1.1, 1.2, 1.3
    alone = abilities.conversion_scores(right, [], [])
    assert (alone["distance"], alone["gain"], alone["gain_95"]) == (1.5, None, None)


def test_the_intervals_are_those_of_another_program() -> None:
    """The gain's interval against scipy's bootstrap of paired differences."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    hard = rng.gamma(2, 1, 40)
    ones, others = hard + rng.normal(0, 0.2, 40), hard + 0.3 + rng.normal(0, 0.2, 40)
    right = [item(sample=str(i), distance=one, **{"length ratio": 1.0}) for i, one in enumerate(ones)]
    wrong = [item(sample=str(i), distance=one, **{"length ratio": 1.0}) for i, one in enumerate(others)]
    low, high = abilities.conversion_scores(right, wrong, [])["gain_95"]
    theirs = stats.bootstrap(
        (others, ones),
        lambda a, b, axis: (a - b).mean(axis),
        paired=True,
        n_resamples=20000,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert (low, high) == (pytest.approx(theirs.low, abs=0.01), pytest.approx(theirs.high, abs=0.01))


def test_answers() -> None:
    items = [item(right=True), item(right=False), item(right=True), item(right=True, ended=False)]
    scores = abilities.answer_scores(items)
    assert (scores["right"], scores["runaways"], scores["no answer"]) == (0.75, 1, 0)
    assert "75.0%" in abilities.table("answering", {"row": scores}, [])


# Answers


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("It is seven.", "7", True),
        ("It is seven.", "The answer is seven.", True),
        ("It is seven.", "It is seventeen.", False),
        ("It is seven.", "It is 77.", False),
        ("It is twenty.", "It is 21.", False),
        ("It is seven.", "It is not seven.", False),
        ("No.", "No, never.", False),
        ("No.", "No.", True),
        ("It is seven.", "It is seven, eight, nine, ten, eleven, or twelve.", False),
        ("It is a knife.", "You may use a knife, perhaps.", True),
        ("It is a knife.", "A fork, a spoon, some bread, a knife, or my brother.", False),
        ("It is seven.", "", False),
        ("It is twenty one.", "21", True),
        ("It is twenty one.", "It is twenty.", False),
        ("The capital is New York.", "the capital is york new", False),
        ("It is.", "it is", True),
        ("In 1984", "nineteen eighty-four", True),
    ],
)
def test_right_answers(reference: str, answer: str, right: bool) -> None:
    assert is_right(reference, answer) is right


# Distances

TARGET = Heard(2.0, {}, np.array([1.0, 0.0]), 3.5, 200.0, 0.6)


@pytest.mark.parametrize(
    ("kind", "changed", "expected"),
    [
        ("voice", {"voice": np.array([1.0, 1.0])}, 1 - 0.5**0.5),
        ("voice", {"voice": None}, 1.0),
        ("rate", {"seconds": 1.0}, log(2)),
        ("rate", {"seconds": 0.0}, log(200)),
        ("pitch", {"f0": 400.0}, 12.0),
        ("pitch", {"f0": 200 * 2 ** (-1 / 12)}, 1.0),
        ("pitch", {"f0": None}, 12.0),
        ("style", {"voiced": 0.1}, 0.5),
        ("denoise", {"quality": 3.0}, 0.5),
        ("denoise", {"quality": 4.0}, 0.0),
    ],
)
def test_distances(kind: str, changed: dict, expected: float) -> None:
    assert distance(kind, replace(TARGET, **changed), TARGET) == pytest.approx(expected)
    assert distance(kind, TARGET, TARGET) == pytest.approx(0)


def test_distances_that_are_undefined() -> None:
    for kind, missing in (("voice", "voice"), ("pitch", "f0"), ("denoise", "quality")):
        assert distance(kind, TARGET, replace(TARGET, **{missing: None})) is None
    assert distance("emotion", TARGET, TARGET) is None


# Judges


def test_judges_hear_a_recording_once() -> None:
    calls = []
    judges = Judges({"one": lambda wave, rate: calls.append(rate) or "said"}, quality=lambda wave, rate: 2)
    heard = judges.hear_file(VOICES / "michael-2.ogg")
    assert judges.hear_file(VOICES / "michael-2.ogg") is heard
    assert len(calls) == 1
    assert (heard.transcripts, heard.quality, heard.voice) == ({"one": "said"}, 2.0, None)
    assert heard.seconds == pytest.approx(1.584, abs=0.01)
    assert 70 < heard.f0 < 160  # a man
    assert 0.3 < heard.voiced < 1
    women = judges.hear(*soundfile.read(VOICES / "isabella-1.ogg", dtype="float32"))
    assert 150 < women.f0 < 300


def test_an_answer_that_is_no_sound() -> None:
    judges = Judges({"one": lambda wave, rate: 1 / 0}, lambda wave, rate: 1 / 0, lambda wave, rate: 1 / 0)
    for samples in (0, 100):
        heard = judges.hear(np.zeros(samples, np.float32), 24000)
        assert (heard.transcripts, heard.voice, heard.quality, heard.voiced) == ({"one": ""}, None, 1.0, 0.0)
        assert similarity(heard, TARGET) == 0.0
    assert Judges({}).hear(np.zeros(0, np.float32), 24000).quality is None


def test_a_speaker_encoder_that_hears_nobody() -> None:
    """In what a model made that is no voice; in a recording it is an error that names the file."""
    judges = Judges({}, lambda wave, rate: 1 / 0)
    assert judges.hear(np.zeros(24000, np.float32), 24000).voice is None
    with pytest.raises(MimoError, match=r"michael-2.ogg: --speaker: the evaluator failed: ZeroDivisionError"):
        judges.hear_file(VOICES / "michael-2.ogg")
    nan = replace(TARGET, voice=np.array([np.nan, 1.0]))
    assert similarity(nan, TARGET) == 0.0
