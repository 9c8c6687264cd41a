"""README.md and docs/*.md: every command that can run here does, as it stands, in the order of its page.

On small models with random weights under the released ones' names. What cannot run is counted by its reason, so that
nobody leaves a command out in silence. docs/data.md, docs/serving.md and the README's Python have tests of their own.
"""

import json
import re
import shutil
import sys
import wave
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from .pages import ROOT, furnish, run_page

GOLDEN = ROOT / "tests" / "golden" / "ckpt"
NOT_HERE = {
    "installs": r"^(pip|hf|apt-get|make|scripts/)|npm pack",
    "takes hours": r"--hours|--voices kokoro|data\.synthetic|--out runs/nano|--data voices\.jsonl|sets/voices",
    "a trained model's recordings or scores": r"runs/nano|held_out|pairs\.jsonl|--peer",
    "several processes or GPUs": r"torchrun",
    "serves until it is stopped": r"^mimo-audio serve",
}
PAGES = {"README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))}
PAGES -= {"docs/data.md", "docs/serving.md"}
LEFT_OUT = {
    "README.md": {
        "installs": 10,
        "takes hours": 5,
        "a trained model's recordings or scores": 5,
        "serves until it is stopped": 1,
    },
    "docs/finetuning.md": {"installs": 1},
    "docs/nano.md": {"takes hours": 1, "a trained model's recordings or scores": 2},
    "docs/training-lm.md": {"installs": 1, "takes hours": 1, "several processes or GPUs": 2},
    "docs/training.md": {"installs": 1, "takes hours": 2, "a trained model's recordings or scores": 2},
    "docs/voices.md": {"installs": 4, "takes hours": 3},
}
SILENT = "the model answered without speech"  # which random weights may do
STAGE = {
    "kind": "understanding", "seed": 0, "steps": 1, "rows": 1, "context": 64, "micro_batches": 1, "warmup": 0,
    "learning_rates": {"patch_encoder": 1e-4, "backbone": 1e-4}, "schedule": "constant", "precision": "float32",
    "data": {"sets": [{"set": "sets/corpus", "tasks": {"asr": 1}}]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    furnish(tmp_path, monkeypatch)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lay_out(folder: Path) -> None:
    """What a reader has: recordings, the released models (small ones, of random weights), codes, a set, a recipe."""
    from mimo_audio.cli import main

    clip = str(files("mimo_audio") / "assets" / "digits.wav")
    (folder / "recordings").mkdir()
    for name in ("in", "meeting", "her", "street", "query", "a", "b", "start", "recordings/one"):
        shutil.copy(clip, folder / f"{name}.wav")
    shutil.copytree(GOLDEN / "A_lm_s0", folder / "MiMo-Audio-7B-Instruct")
    shutil.copytree(GOLDEN / "A_lm_s0", folder / "MiMo-Audio-7B-Base")
    shutil.copytree(GOLDEN / "A_tok_s0", folder / "MiMo-Audio-Tokenizer")
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path/to/MiMo-Audio-Tokenizer").symlink_to(folder / "MiMo-Audio-Tokenizer")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / ".local/share/bash-completion/completions").mkdir(parents=True)
    assert main(["encode", "in.wav", "talk.tokens"]) == 0
    assert main(["encode", "in.wav", "released.tokens", "--model", "MiMo-Audio-Tokenizer"]) == 0
    Path("manifest.jsonl").write_text('{"audio": "in.wav"}')
    Path("recordings.jsonl").write_text('{"audio": "in.wav", "text": "Three."}')
    tokenize = ["data", "tokenize", "recordings.jsonl", "--out", "sets/corpus", "--workers", "1"]
    assert main([*tokenize, "--model", "MiMo-Audio-Tokenizer"]) == 0
    Path("my.json").write_text(json.dumps({"start": "MiMo-Audio-7B-Instruct", "stages": {"first": STAGE}}))


def counted(left_out: list[str]) -> dict[str, int]:
    return dict(Counter(next(why for why, what in NOT_HERE.items() if re.search(what, line)) for line in left_out))


@pytest.mark.parametrize("page", sorted(PAGES - {"docs/finetuning.md"}))
def test_commands(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    lay_out(tmp_path)
    _, left_out = run_page(ROOT / page, NOT_HERE.values(), python=False, may_say=SILENT)
    assert counted(left_out) == LEFT_OUT.get(page, {})


def test_finetuning(capsys: pytest.CaptureFixture[str]) -> None:
    names, left_out = run_page(ROOT / "docs" / "finetuning.md", NOT_HERE.values())
    assert counted(left_out) == LEFT_OUT["docs/finetuning.md"]
    assert capsys.readouterr().out.count("Nine two six.\n") == 2  # transcribed twice
    assert names["model"].transcribe("recordings/a.wav") == "Three one."
    for name in ("said.wav", "said-again.wav", "more.wav"):
        with wave.open(name) as sound:
            assert 0.2 < sound.getnframes() / sound.getframerate() < 5


def test_the_notebook_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code cells, in order, as Jupyter runs them; where IPython is not installed a stand-in plays."""
    player = ModuleType("IPython.display")
    player.Audio = lambda wave, rate: len(wave) / rate  # type: ignore[attr-defined]
    for name, module in (("IPython", ModuleType("IPython")), ("IPython.display", player)):
        monkeypatch.setitem(sys.modules, name, module)
    notebook = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        exec(cell, names)
    assert not any(cell.get("outputs") for cell in notebook["cells"])  # nothing of one machine
    said = capsys.readouterr().out
    assert re.search(r"codes \[8, \d+\]: ", said)
    assert float(re.findall(r"([\d.]+)% of the codes agree", said)[0]) > 99.5
    assert torch.equal(names["by_four"], names["by_seven"])
    assert names["sound"].grad.shape == names["decoded"].shape
