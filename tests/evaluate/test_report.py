"""The table and the record of round trips, and the picture."""

from pathlib import Path

import numpy as np
import pytest

from mimo_audio.evaluate import metrics, plot, report
from mimo_audio.evaluate.quality import Quality
from mimo_audio.evaluate.report import RoundTrip

FIRST = RoundTrip("a.wav", "a.out.wav", 2.0, 1.55, 0.25, Quality(2.5, 2.0, 0.9, 5.0, 0.0123))
SECOND = RoundTrip("longer-name.wav", "b.wav", 61.25, 1.55, 0.75, Quality(3.5, None, None, 7.0, None))


def test_one_file_is_one_line() -> None:
    head, row = report.table([FIRST]).splitlines()
    assert row.split() == ["a.wav", "2.0", "1.55", "2.50", "2.00", "0.900", "5.00", "dB", "1.2%", "0.250"]
    assert [head.index(title) + len(title) for title in ("seconds", "STOI", "F0 error")] == [
        row.index(cell) + len(cell) for cell in (" 2.0", "0.900", "1.2%")
    ]


def test_several_files_get_a_mean_over_what_is_defined() -> None:
    *_, second, mean = report.table([FIRST, SECOND]).splitlines()
    assert second.split() == ["longer-name.wav", "61.2", "1.55", "3.50", "-", "-", "7.00", "dB", "-", "0.750"]
    assert mean.split() == ["mean", "-", "1.55", "3.00", "2.00", "0.900", "6.00", "dB", "1.2%", "0.500"]
    assert report.mean_record([SECOND])["stoi"] is None


def test_missing_packages_are_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None if name == "pesq" else object())
    last = report.table([FIRST, SECOND]).splitlines()[-1]
    assert "pesq" in last
    assert "pystoi" not in last
    assert "pip install pesq" in last


def test_record_is_flat() -> None:
    assert FIRST.record() == {
        "input": "a.wav", "output": "a.out.wav", "seconds": 2.0, "kbit_per_s": 1.55, "real_time_factor": 0.25,
        "pesq_nb": 2.5, "pesq_wb": 2.0, "stoi": 0.9, "mel_distance_db": 5.0, "f0_error": 0.0123,
    }  # fmt: skip


@pytest.mark.parametrize("length", [1, 24000, 45 * 24000])
def test_picture_is_a_png(tmp_path: Path, length: int) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, length)
    plot.plot_mels(tmp_path / "mels.png", wave, wave * 0.5, "a title")
    from matplotlib.image import imread

    assert imread(tmp_path / "mels.png").shape[:2] == (720, 1200)
