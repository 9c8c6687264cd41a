"""Training the language model: steps, resuming, stages, what stops a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mimo_audio.errors import MimoError, ModelError
from mimo_audio.files.output import OutputError
from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.losses import losses
from mimo_audio.train import distributed_checkpoint, lm
from mimo_audio.train.lm import Trainer
from mimo_audio.train.loop import run
from mimo_audio.train.processes import Processes
from mimo_audio.train.recipe import TrainingError

from ..lm.conftest import SPECIAL, tiny_config
from .conftest import alone
from .lm_source import RandomSource, recipe_of


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm, "peak_flops", lambda device, dtype: 1e12)


def tiny_model() -> AudioLanguageModel:
    torch.manual_seed(0)
    return AudioLanguageModel(tiny_config(), SPECIAL)


def trainer_of(processes: Processes | None = None, **changes: Any) -> Trainer:
    recipe = recipe_of(**changes)
    stage = recipe.stages["joint"]
    model = tiny_model()
    source = RandomSource(model, stage.rows, stage.context, stage.seed)
    return Trainer(model, stage, source, processes or alone(), lm.noted(recipe, "joint"))


def steps_of(trainer: Trainer, steps: range) -> list[dict[str, float]]:
    return [trainer.step(n, [trainer.read(n, m) for m in trainer.micro_batches]) for n in steps]


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_step_is_adamw_on_the_global_batch():
    """Micro-batches of unequal label counts together are one batch; module rates; clip; decay of matrices only."""
    trainer = trainer_of(micro_batches=3, clip=0.05)
    model = tiny_model()
    rates = {"speech_embeddings": 0.004, "patch_encoder": 0.004, "patch_decoder": 0.004}
    groups = [
        {"params": [p], "lr": rates.get(name.split(".")[0], 0.002), "weight_decay": 0.1 if p.dim() > 1 else 0.0}
        for name, p in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    peaks = [group["lr"] for group in optimizer.param_groups]
    for number in range(3):
        batches = [trainer.source.batch(number, m) for m in range(3)]
        ids, labels, documents = (
            torch.cat([getattr(b, n) for b in batches]) for n in ("input_ids", "labels", "documents")
        )

        found = losses(model, ids, labels, documents=documents)
        optimizer.zero_grad()
        found.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * ((number + 1) / 2 if number < 2 else 1.0)  # warm-up of ceil(0.3 x 6) steps
        optimizer.step()
        (numbers,) = steps_of(trainer, range(number, number + 1))
        assert numbers["loss"] == pytest.approx(found.total.item(), rel=1e-5)
        assert numbers["text"] == pytest.approx(found.text.item(), rel=1e-5)
        assert [numbers[f"audio{c}"] for c in (1, 2, 3)] == pytest.approx(found.channels.tolist(), rel=1e-5)
    wanted = dict(model.named_parameters())
    for name, weight in weights_of(trainer).items():
        torch.testing.assert_close(weight, wanted[name], atol=2e-5, rtol=1e-4, msg=name)


def test_a_run_learns_and_logs(tmp_path):
    trainer = trainer_of(steps=30, micro_batches=1, checkpoint_every=30, log_every=10)
    assert run(trainer, tmp_path, 0)
    first, _, last = records_of(tmp_path)
    assert last["text"] < first["text"] - 0.5
    assert {"loss", "audio1", "audio3", "gradient", "gradient/backbone", "labels/asr", "labels/tts"} <= last.keys()
    assert {"mfu", "positions_per_second", "loss_tokens_per_second", "audio_hours_per_hour"} <= last.keys()
    assert last["filled"] == pytest.approx(22 / 24, abs=1e-4)
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "pure_bfloat16"])
def test_resumed_equals_uninterrupted(tmp_path, precision):
    whole = trainer_of(precision=precision)
    assert run(whole, tmp_path / "whole", 0)
    first = trainer_of(precision=precision)
    steps_of(first, range(3))
    first.save(tmp_path / "parts", 3)
    second = trainer_of(precision=precision)
    torch.manual_seed(9)
    assert second.load(tmp_path / "parts") == 3
    assert run(second, tmp_path / "parts", 3)
    for name, weight in weights_of(whole).items():
        assert torch.equal(weight, weights_of(second)[name]), name


def test_understanding_leaves_the_patch_decoder_as_it_is():
    rates = {"patch_encoder": 0.004, "backbone": 0.002}
    trainer = trainer_of(kind="understanding", learning_rates=rates)
    before = weights_of(trainer)
    (numbers, *_) = steps_of(trainer, range(2))
    assert "audio1" not in numbers
    assert numbers["loss"] == numbers["text"]
    for name, weight in weights_of(trainer).items():
        assert torch.equal(weight, before[name]) == name.startswith("patch_decoder"), name


def test_labels_are_counted_by_task():
    trainer = trainer_of()
    read = trainer.read(0, 0)
    assert sum(read.labels.values()) == len(read.packed.text) + read.packed.codes.numel()
    batch = trainer.source.batch(0, 0)
    size = trainer.model.config.group_size
    is_tts = (batch.documents == 1) & torch.cat(
        [torch.zeros(2, 1), (batch.documents[:, 1:] == batch.documents[:, :-1])], 1
    ).bool()
    text = (batch.labels[:, 0, ::size] != -100) & is_tts
    codes = (batch.labels[:, 1:] != -100) & is_tts.repeat_interleave(size, 1)[:, None]
    assert read.labels["tts"] == int(text.sum() + codes.sum())


def test_data_that_cannot_be_read_loses_no_step(tmp_path):
    def wrong(step: int) -> None:
        if step == 2:
            raise MimoError("x.bin: gone")

    trainer = trainer_of()
    trainer.source = RandomSource(trainer.model, 2, 24, 3, wrong)
    with pytest.raises(MimoError, match=r"x\.bin: gone"):
        run(trainer, tmp_path, 0)
    assert trainer_of().load(tmp_path) == 2


def test_a_loss_that_is_not_finite_moves_nothing():
    trainer = trainer_of()
    with torch.no_grad():
        trainer.model.lm_head.weight[3] = torch.nan
    before = weights_of(trainer)
    with pytest.raises(TrainingError, match="step 0: loss is nan; the last checkpoint is intact"):
        steps_of(trainer, range(1))
    for name, weight in weights_of(trainer).items():
        assert torch.equal(weight.nan_to_num(), before[name].nan_to_num()), name


def test_micro_batches_must_split_among_the_processes():
    with pytest.raises(TrainingError, match="micro_batches: expected a multiple of the 2 processes, got 3"):
        trainer_of(Processes(0, 2, torch.device("cpu")), micro_batches=3)


def test_validation_is_the_mean_by_task(tmp_path):
    trainer = trainer_of(steps=2, checkpoint_every=2, validation_batches=3)
    trainer.validation = RandomSource(trainer.model, 2, 24, 77)
    assert run(trainer, tmp_path, 0)
    found = {k: v for record in records_of(tmp_path) for k, v in record.items() if k.startswith("validation/")}
    assert found.keys() == {
        f"validation/{task}/{kind}" for task in ("asr", "tts", "text") for kind in ("text", "audio")
    }
    model, size, empty = trainer.model, trainer.model.config.group_size, SPECIAL.empty
    text, audio, labels, patches = 0.0, 0.0, 0, 0
    for number in range(3):
        batch = trainer.validation.batch(0, number)
        for row, documents in enumerate(batch.documents):
            columns = (documents == 1).repeat_interleave(size)
            ids, wanted = batch.input_ids[row : row + 1, :, columns], batch.labels[row : row + 1, :, columns]
            with torch.no_grad():
                alone_ = losses(model, ids, wanted, empty_loss_weight=0.0)
            targets = wanted[0, 0, size::size]  # a document's first label has nothing before it
            count, labelled = int(((targets != -100) & (targets != empty)).sum()), int((targets == empty).sum())
            text, labels = text + alone_.text.item() * count, labels + count
            audio, patches = audio + alone_.channels.mean().item() * labelled, patches + labelled
    assert found["validation/tts/text"] == pytest.approx(text / labels, rel=1e-4)
    assert found["validation/tts/audio"] == pytest.approx(audio / patches, rel=1e-4)


def test_a_killed_save_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    trainer = trainer_of()
    steps_of(trainer, range(1))
    trainer.save(tmp_path, 1)
    kept = weights_of(trainer)
    steps_of(trainer, range(1, 2))
    written = distributed_checkpoint.dcp.save

    def killed(*arguments: Any, **options: Any) -> None:
        written(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(distributed_checkpoint.dcp, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.save(tmp_path, 2)
    monkeypatch.undo()
    again = trainer_of()
    assert again.load(tmp_path) == 1
    for name, weight in weights_of(again).items():
        assert torch.equal(weight, kept[name]), name
    trainer.save(tmp_path, 2)
    assert again.load(tmp_path) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-00000002", "model"}


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    trainer = trainer_of()
    trainer.save(tmp_path, 1)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(distributed_checkpoint.dcp, "save", full)
    with pytest.raises(OutputError, match="checkpoint-00000002: cannot write, No space left on device"):
        trainer.save(tmp_path, 2)
    assert trainer_of().load(tmp_path) == 1


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    trainer = trainer_of()
    trainer.save(tmp_path, 1)
    for path in (tmp_path / "checkpoint-00000001").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot resume from") as caught:
        trainer_of().load(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "checkpoint-00000001" / "training.json").write_text("{")
    with pytest.raises(ModelError, match="cannot resume from"):
        trainer_of().load(tmp_path)
