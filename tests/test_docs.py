"""docs/*.md: what the pages say to type runs as it stands (README.md and docs/data.md have tests of their own)."""

import wave
from pathlib import Path

import pytest
import torch

from .pages import ROOT, furnish, run_page

NOT_HERE = {r"^pip install": "installs"}


@pytest.fixture(autouse=True)
def _in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    furnish(tmp_path, monkeypatch)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_finetuning(capsys: pytest.CaptureFixture[str]) -> None:
    names, left_out = run_page(ROOT / "docs" / "finetuning.md", NOT_HERE)
    assert left_out == ["pip install 'mimo-audio-native[train,lora]'"]
    assert capsys.readouterr().out.count("Nine two six.\n") == 2  # transcribed twice
    assert names["model"].transcribe("recordings/a.wav") == "Three one."
    for name in ("said.wav", "said-again.wav", "more.wav"):
        with wave.open(name) as sound:
            assert 0.2 < sound.getnframes() / sound.getframerate() < 5
