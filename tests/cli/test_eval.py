"""`mimo-audio eval tokenizer`: sets, judges, what it writes, bad input."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from .conftest import Run

Mimo = Callable[..., Run]


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recogniser that hears "yes no" in shipped speech and "yes" in what the model makes of it; a speaker judge."""
    module = ModuleType("some_judges")
    module.recognise = lambda wave, rate: "yes no" if np.abs(wave).max() == np.float32(0.5) else "yes"
    module.embed = lambda wave, rate: np.array([len(wave) / rate, 0.0])
    monkeypatch.setitem(sys.modules, "some_judges", module)


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


def test_sets_are_scored(mimo: Mimo, model: Path, sets: tuple[Path, Path], judges: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = mimo(
        *("eval", "tokenizer", *sets, "--out", out, "--model", model, "--device", "cpu"),
        *("--recogniser", "some_judges:recognise", "--speaker", "some_judges:embed"),
    )
    assert done.status == 0
    assert done.out.splitlines()[1].split()[0] == "spoken"
    assert done.out.splitlines()[2].split()[0] == "other"
    record = json.loads((out / "scores.json").read_text())
    mean = record["sets"]["spoken"]["mean"]
    assert (mean["wer_original"], mean["wer_decoded"]) == (0, 0.5)
    assert mean["speaker_similarity"] == pytest.approx(1)
    assert mean["seconds"] == pytest.approx(4)
    assert mean["kbit_per_s"] == pytest.approx(25 * (5 + 4 + 4) / 1000)
    assert record["sets"]["other"]["mean"]["wer_original"] is None
    first, second = record["sets"]["spoken"]["files"]
    assert (first["text"], first["heard_original"], first["heard_decoded"]) == ("Yes, no!", "yes no", "yes")
    assert (second["text"], second["heard_original"]) == (None, None)
    assert [book["size"] for book in record["codebooks"]] == [32, 16, 16]
    assert all(1 <= book["perplexity"] <= book["used"] for book in record["codebooks"])
    assert {path.name for path in out.iterdir()} == {"scores.json", "scores.png", "usage.png", "sounds"}
    assert len(list((out / "sounds" / "spoken").iterdir())) == 2


def test_limit(mimo: Mimo, model: Path, sets: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = mimo("eval", "tokenizer", *sets, "--out", out, "--model", model, "--device", "cpu", "--limit", "1")
    assert done.status == 0
    record = json.loads((out / "scores.json").read_text())
    assert [len(one["files"]) for one in record["sets"].values()] == [1, 1]


def test_bad_input(mimo: Mimo, model: Path, sets: tuple[Path, Path], tmp_path: Path) -> None:
    command = ("eval", "tokenizer", "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    for arguments, message in (
        ((sets[0], sets[0]), "folders of different names, got a second 'spoken'"),
        ((sets[0], "--recogniser", "nowhere:f"), "--recogniser: cannot find 'nowhere:f'"),
        ((tmp_path / "none.jsonl",), "cannot read"),
    ):
        done = mimo(*command, *arguments)
        assert done.status == 2
        assert message in done.err
    assert not (tmp_path / "out").exists()
