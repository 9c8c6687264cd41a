"""`mimo-audio eval tokenizer`: sets, evaluators, other codecs, what it writes, bad recordings, bad input."""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio.cli import eval as evaluation
from mimo_audio.errors import ModelError

from .conftest import Run

Mimo = Callable[..., Run]


@pytest.fixture
def evaluators(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A recogniser that hears "yes no" in shipped speech and "yes" in what the model makes of it; a speaker encoder."""
    module = ModuleType("some_judges")
    module.recognise = lambda wave, rate: "yes no" if np.abs(wave).max() == np.float32(0.5) else "yes"
    module.embed = lambda wave, rate: np.array([len(wave) / rate, 0.0])
    monkeypatch.setitem(sys.modules, "some_judges", module)
    return module


@pytest.fixture
def sets(tmp_path: Path, speech: np.ndarray) -> tuple[Path, Path]:
    """A manifest of two recordings, one with a text, and a folder of one."""
    for name in ("spoken", "other"):
        (tmp_path / name).mkdir()
    scaled = speech / np.abs(speech).max() * 0.5
    for path in ("spoken/a.wav", "spoken/b.wav", "other/c.wav"):
        soundfile.write(tmp_path / path, scaled, 24000, subtype="FLOAT")
    manifest = tmp_path / "spoken" / "manifest.jsonl"
    manifest.write_text('{"audio": "a.wav", "text": "Yes, no!"}\n{"audio": "b.wav"}\n')
    return manifest, tmp_path / "other"


class Half(evaluation.Peer):
    """A codec at 8 kHz that halves the wave, and cannot code exactly one second."""

    def __init__(self) -> None:
        self.name, self.sample_rate, self.codebooks, self.kbit_per_s = "half", 8000, 2, 1.5
        self.model = torch.nn.Linear(1, 1)
        self.model.device = torch.device("cpu")

    def reconstruct(self, wave):
        if len(wave) == 8000:
            raise ModelError("--peer half: cannot code 8000 samples")
        yield wave / 2

    def _choices(self):
        raise AssertionError

    def _code(self, wave):
        raise AssertionError


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "load_peer", lambda option, kbit_per_s, device: Half())


def scores(out: Path) -> dict:
    return json.loads((out / "scores.json").read_text())


def test_sets_are_scored(
    mimo: Mimo, model: Path, sets: tuple[Path, Path], evaluators: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = mimo(
        *("eval", "tokenizer", *sets, "--out", out, "--model", model, "--device", "cpu"),
        *("--recogniser", "some_judges:recognise", "--speaker", "some_judges:embed"),
    )
    assert done.status == 0
    assert done.out.splitlines()[1].split()[0] == "spoken"
    assert done.out.splitlines()[2].split()[0] == "other"
    record = scores(out)
    about = record["environment"]
    assert about["torch"] == torch.__version__
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", about["commit"])
    assert time.strftime("%Y") in about["date"]
    mean = record["sets"]["spoken"]["mean"]
    assert (mean["words"], mean["wer_original"], mean["wer_decoded"], mean["wer_difference"]) == (2, 0, 0.5, 0.5)
    assert mean["speaker_similarity"] == pytest.approx(1)
    assert mean["seconds"] == pytest.approx(4)
    assert mean["kbit_per_s"] == pytest.approx(25 * (5 + 4 + 4) / 1000)
    assert record["sets"]["other"]["mean"]["wer_original"] is None
    first, second = record["sets"]["spoken"]["files"]
    assert (first["text"], first["transcript_original"], first["transcript_decoded"]) == ("Yes, no!", "yes no", "yes")
    assert (second["text"], second["transcript_original"]) == (None, None)
    assert (record["failed"], record["interrupted"], record["peers"]) == ([], False, [])
    assert [book["size"] for book in record["codebooks"]] == [32, 16, 16]
    assert all(1 <= book["perplexity"] <= book["used"] for book in record["codebooks"])
    assert {path.name for path in out.iterdir()} == {"scores.json", "scores.png", "usage.png", "sounds"}
    assert len(list((out / "sounds" / "spoken").iterdir())) == 2


def test_the_table_shows_the_interval_of_the_difference(
    mimo: Mimo, model: Path, sets: tuple[Path, Path], evaluators: ModuleType, tmp_path: Path
) -> None:
    sets[0].write_text('{"audio": "a.wav", "text": "Yes, no!"}\n{"audio": "b.wav", "text": "Yes, no!"}\n')
    command = ("eval", "tokenizer", sets[0], "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    done = mimo(*command, "--recogniser", "some_judges:recognise")
    assert "+0.500 [+0.500, +0.500]" in done.out.splitlines()[1]
    assert scores(tmp_path / "out")["sets"]["spoken"]["mean"]["wer_difference_95"] == [0.5, 0.5]


def test_limit(mimo: Mimo, model: Path, sets: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = mimo("eval", "tokenizer", *sets, "--out", out, "--model", model, "--device", "cpu", "--limit", "1")
    assert done.status == 0
    assert [len(one["files"]) for one in scores(out)["sets"].values()] == [1, 1]


def test_held_out(mimo: Mimo, model: Path, sets: tuple[Path, Path], tmp_path: Path) -> None:
    sets[0].write_text('{"audio": "a.wav", "held_out": false}\n{"audio": "b.wav", "held_out": true}\n')
    command = ("eval", "tokenizer", sets[0], "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    assert mimo(*command, "--held-out").status == 0
    assert [Path(one["input"]).name for one in scores(tmp_path / "out")["sets"]["spoken"]["files"]] == ["b.wav"]
    sets[0].write_text('{"audio": "a.wav"}\n')
    assert 'marked as "held_out"' in mimo(*command, "--held-out", "--force").err


def test_a_peer_has_rows_of_its_own(
    mimo: Mimo, model: Path, sets: tuple[Path, Path], evaluators: ModuleType, half: None, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = mimo(
        *("eval", "tokenizer", sets[0], "--out", out, "--model", model, "--device", "cpu"),
        *("--peer", "half", "--recogniser", "some_judges:recognise"),
    )
    assert done.status == 0
    assert [line.split()[0] for line in done.out.splitlines()[1:3]] == ["spoken", "spoken/half"]
    record = scores(out)
    assert record["peers"] == [{"name": "half", "kbit_per_s": 1.5, "n_q": 2}]
    mean = record["sets"]["spoken/half"]["mean"]
    assert (mean["kbit_per_s"], mean["seconds"], mean["wer_decoded"]) == (1.5, pytest.approx(4), 0.5)
    assert mean["stoi"] > 0.95 > record["sets"]["spoken"]["mean"]["stoi"]
    assert mean["f0_error"] < 0.01
    sound, rate = soundfile.read(out / "sounds" / "spoken" / "half" / "00000.wav")
    assert (rate, len(sound)) == (8000, 16000)
    assert np.abs(sound).max() == pytest.approx(0.25, rel=0.05)


def test_bad_recordings_are_left_out_of_all_rows(
    mimo: Mimo, model: Path, sets: tuple[Path, Path], speech: np.ndarray, half: None, tmp_path: Path
) -> None:
    folder = sets[1]
    (folder / "0-text.wav").write_text("not a recording")
    for name, wave in (
        ("1-empty", speech[:0]),
        ("2-short", speech[:5000]),
        ("3-silent", speech * 0),
        ("4-second", speech[:24000]),
    ):
        soundfile.write(folder / f"{name}.wav", wave, 24000)
    command = ("eval", "tokenizer", folder, "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    done = mimo(*command, "--peer", "half")
    assert done.status == 1
    record = scores(tmp_path / "out")
    for row in ("other", "other/half"):
        assert [Path(one["input"]).name for one in record["sets"][row]["files"]] == ["c.wav"]
    named = (
        "0-text.wav",
        "1-empty.wav: no samples",
        "2-short.wav: expected at least 0.25 s",
        "3-silent.wav: expected sound",
    )
    for name, failure in zip((*named, "4-second.wav: --peer half"), record["failed"], strict=True):
        assert name in failure
        assert f"left out: {failure}" in done.err


def test_a_judge_that_fails_costs_one_recording(
    mimo: Mimo, model: Path, sets: tuple[Path, Path], evaluators: ModuleType, tmp_path: Path
) -> None:
    embed, calls = evaluators.embed, []

    def fails_third(wave, rate):
        calls.append(rate)
        return embed(wave, rate) if len(calls) != 3 else 1 / 0

    evaluators.embed = fails_third  # the first call is the trial
    command = ("eval", "tokenizer", *sets, "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    done = mimo(*command, "--speaker", "some_judges:embed")
    assert done.status == 1
    (failure,) = scores(tmp_path / "out")["failed"]
    assert "a.wav: --speaker: the evaluator failed: ZeroDivisionError" in failure


def test_ctrl_c_keeps_what_is_done(
    mimo: Mimo, model: Path, sets: tuple[Path, Path], evaluators: ModuleType, tmp_path: Path
) -> None:
    embed, calls = evaluators.embed, []

    def interrupts_fifth(wave, rate):
        calls.append(rate)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return embed(wave, rate)

    evaluators.embed = interrupts_fifth  # a trial, a.wav twice, b.wav
    command = ("eval", "tokenizer", *sets, "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    done = mimo(*command, "--speaker", "some_judges:embed")
    assert done.status == 130
    assert "interrupted, the results are those of the first 1 recordings" in done.err
    record = scores(tmp_path / "out")
    assert record["interrupted"] is True
    assert [Path(one["input"]).name for one in record["sets"]["spoken"]["files"]] == ["a.wav"]
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]


def test_bad_input(mimo: Mimo, model: Path, sets: tuple[Path, Path], half: None, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.wav").write_text("not a recording")
    command = ("eval", "tokenizer", "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    for arguments, message in (
        ((sets[0], sets[0]), "expected every set in a folder of its own, got this one twice"),
        ((sets[0], "--recogniser", "nowhere:f"), "--recogniser: cannot find 'nowhere:f' (expected whisper"),
        ((sets[0], "--peer", "half", "--peer", "half=x"), "--peer: expected every codec once"),
        ((tmp_path / "none.jsonl",), "cannot read"),
        ((tmp_path / "bad",), "no recording can be scored; cannot read"),
    ):
        done = mimo(*command, *arguments)
        assert done.status == 2
        assert message in done.err
    assert not (tmp_path / "out").exists()


def test_folders_of_one_name_are_told_apart(tmp_path: Path, speech: np.ndarray) -> None:
    for name in ("a/test", "b/test", "b/dev"):
        (tmp_path / name).mkdir(parents=True)
        soundfile.write(tmp_path / name / "x.wav", speech, 24000)
    sources = [tmp_path / name for name in ("a/test", "b/test", "b/dev")]
    assert list(evaluation._sets(sources)) == ["a/test", "b/test", "dev"]
