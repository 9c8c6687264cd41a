"""Fine-tuning a released-layout model: manifests to a model folder that says what it was taught; adapters and merge."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio.cli import main
from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.losses import losses
from mimo_audio.released import checkpoint
from mimo_audio.tasks import model as tasks
from mimo_audio.train import lm, parallel
from mimo_audio.train.lora import Lora, add_lora

from ..lm.conftest import FOLDER, SPECIAL, tiny_config
from .conftest import alone
from .lm_source import RandomSource
from .test_lm_training import records_of, steps_of, trainer_of

ROWS: list[dict[str, Any]] = [
    {"task": "speech", "audio": "0.wav", "text": "Good morning.", "language": "en"},
    {"task": "understanding", "audio": "1.wav", "question": "What is it?", "thought": "It hums.", "answer": "A tone."},
]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two tones and what is known about them."""
    time = np.arange(16800) / 24000
    for number, pitch in enumerate((150, 240)):
        soundfile.write(tmp_path / f"{number}.wav", 0.3 * np.sin(2 * np.pi * pitch * time), 24000)
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def arguments(manifest: Path, out: Path, *more: str) -> list[str]:
    model, tokenizer = (str(FOLDER / "ckpt" / name) for name in ("A_lm_s0", "A_tok_s0"))
    return ["finetune", "--model", model, "--tokenizer", tokenizer, "--data", str(manifest), "--out", str(out),
            "--context", "160", "--micro-batches", "1", "--device", "cpu", *more]  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm, "peak_flops", lambda device, dtype: 1e12)


@pytest.mark.parametrize("way", [["--learning-rate", "3e-3"], ["--lora", "--learning-rate", "1e-2"]])
def test_what_was_taught_is_said(manifest, tmp_path, way):
    out = tmp_path / "out"
    assert main(arguments(manifest, out, "--steps", "60", *way)) == 0
    first, *_, last = records_of(out)
    assert last["text"] < 0.05 < first["text"]
    assert {"labels/asr", "labels/tts", "labels/audio_understanding"} <= first.keys() | last.keys()
    assert (out / "model" / "tokenizer").resolve() == (FOLDER / "ckpt" / "A_tok_s0").resolve()
    model = tasks.load(out / "model")
    assert model.transcribe(manifest.parent / "0.wav") == "Good morning."
    understood = model.understand(manifest.parent / "1.wav", "What is it?", thinking=True)
    assert (understood.thought, understood.text) == ("It hums.", "A tone.")


def test_a_second_call_needs_resume_and_goes_on(manifest, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(manifest, out, "--steps", "2")) == 0
    assert main(arguments(manifest, out, "--steps", "3")) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert main(arguments(manifest, out, "--steps", "3", "--resume")) == 0
    assert [record["step"] for record in records_of(out)] == [1, 2, 3]


def test_a_recording_that_cannot_be_read_stops_before_training(manifest, tmp_path, capsys):
    (tmp_path / "1.wav").unlink()
    assert main(arguments(manifest, tmp_path / "out")) == 2
    message = capsys.readouterr().err.strip()
    assert "1.wav" in message
    assert "nothing was trained" in message
    assert not (tmp_path / "out" / "model").exists()


def test_adapters_train_alone_and_merge(tmp_path):
    trainer = trainer_of(lora={"rank": 2, "alpha": 6}, steps=6)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    steps_of(trainer, range(4))
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if ".lora_" in name}
    parallel.save_pretrained(trainer.model, trainer.training.lora, tmp_path, alone())
    merged = AudioLanguageModel(tiny_config(), SPECIAL)
    checkpoint.load(merged, tmp_path / "model.safetensors")
    batch = RandomSource(merged, 2, 24).batch(0, 0)
    with torch.no_grad():
        wanted = losses(trainer.model, batch.input_ids, batch.labels, documents=batch.documents).total
        found = losses(merged, batch.input_ids, batch.labels, documents=batch.documents).total
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_adapters_begin_with_no_effect():
    torch.manual_seed(0)
    model = AudioLanguageModel(tiny_config(), SPECIAL)
    batch = RandomSource(model, 2, 24).batch(0, 0)
    with torch.no_grad():
        before = losses(model, batch.input_ids, batch.labels, documents=batch.documents).total
        add_lora(model, Lora(rank=2, alpha=6), 0)
        assert losses(model, batch.input_ids, batch.labels, documents=batch.documents).total == before
