"""roundtrip: the table, the JSON record, the picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from mimo_audio.evaluate import metrics, plot

SCORES = {"pesq_nb", "pesq_wb", "stoi", "mel_distance_db", "f0_error"}


def test_table_json_and_picture(mimo, wav: Path, tmp_path: Path) -> None:
    out, scores, picture = tmp_path / "out.wav", tmp_path / "scores.json", tmp_path / "mels.png"
    run = mimo("roundtrip", wav, out, "--json", scores, "--plot", picture)
    assert (run.status, run.err) == (0, "")
    head, row = run.out.splitlines()
    assert head.split("  ")[-1].strip() == "real-time factor"
    assert row.startswith("in.wav")

    record = json.loads(scores.read_text())
    assert (record["model"], record["device"], record["dtype"], record["n_q"]) == ("tiny", "cpu", "float32", 3)
    (file,) = record["files"]
    assert (file["input"], file["output"], file["seconds"]) == (str(wav), str(out), 2.0)
    assert file["kbit_per_s"] == pytest.approx((5 + 4 + 4) * 25 / 1000)
    assert file["real_time_factor"] > 0
    assert file.keys() >= SCORES
    assert record["mean"]["stoi"] == file["stoi"]
    assert record["failed"] == []
    assert imread(picture).ndim == 3


def test_scores_are_those_of_the_written_file(mimo, wav: Path, tmp_path: Path) -> None:
    mimo("roundtrip", wav, tmp_path / "out.wav", "--json", tmp_path / "scores.json")
    (file,) = json.loads((tmp_path / "scores.json").read_text())["files"]
    original, decoded = (soundfile.read(path, dtype="float32")[0] for path in (wav, tmp_path / "out.wav"))
    assert file["stoi"] == pytest.approx(metrics.stoi(original, decoded, 24000))
    assert file["mel_distance_db"] == pytest.approx(metrics.mel_distance(original, decoded, 24000), rel=1e-4)


def test_fewer_codebooks_fewer_bits(mimo, wav: Path, tmp_path: Path) -> None:
    mimo("roundtrip", wav, tmp_path / "out.wav", "--json", tmp_path / "scores.json", "--n-q", 1)
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["n_q"] == 1
    assert record["files"][0]["kbit_per_s"] == pytest.approx(0.125)


def test_folder(mimo, tmp_path: Path, speech: np.ndarray) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "a.wav", speech, 24000)
    soundfile.write(tmp_path / "in" / "deep" / "b.wav", speech, 24000)
    (tmp_path / "in" / "empty.wav").touch()
    run = mimo("roundtrip", tmp_path / "in", tmp_path / "out", "--json", tmp_path / "s.json", "--plot", tmp_path / "p")
    assert run.status == 2
    assert [line.split()[0] for line in run.out.splitlines()[1:]] == ["a.wav", "deep/b.wav", "mean"]
    record = json.loads((tmp_path / "s.json").read_text())
    assert len(record["files"]) == 2
    assert "empty.wav" in record["failed"][0]
    for name in ("a.png", "deep/b.png"):
        assert imread(tmp_path / "p" / name).ndim == 3


def test_silence_has_no_scores_but_a_result(mimo, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(24000), 24000)
    run = mimo("roundtrip", tmp_path / "in.wav", tmp_path / "out.wav", "--json", tmp_path / "s.json")
    assert run.status == 0
    (file,) = json.loads((tmp_path / "s.json").read_text())["files"]
    assert [file[name] for name in ("pesq_nb", "pesq_wb", "stoi", "f0_error")] == [None] * 4


def test_without_the_optional_packages(mimo, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    run = mimo("roundtrip", wav, tmp_path / "out.wav")
    assert run.status == 0
    _, row, hint = run.out.splitlines()
    assert row.split()[3:6] == ["-", "-", "-"]
    assert "pip install pesq pystoi" in hint
    run = mimo("roundtrip", wav, tmp_path / "again.wav", "--plot", tmp_path / "mels.png")
    assert run.status == 2
    assert "matplotlib" in run.err
    assert not (tmp_path / "again.wav").exists()
