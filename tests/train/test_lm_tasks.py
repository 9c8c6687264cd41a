"""A tiny model learns every task from one packed token set: each task's loss on text and on codes falls."""

from dataclasses import fields

import pytest
import torch

from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.losses import losses
from mimo_audio.train import lm
from mimo_audio.train.lm import Trainer
from mimo_audio.train.lm_data import TaskWeights

from ..lm.conftest import tiny_config
from .conftest import alone
from .lm_source import recipe_of
from .test_lm_data import SIZES, build, source, write_set

__all__ = ["build"]  # the fixture
TASKS = [field.name for field in fields(TaskWeights)]
WRITTEN = {"asr", "captioning", "audio_understanding", "speech_to_text_dialogue", "text_dialogue", "text"}
STEPS = 60


def test_every_task_is_learned_from_one_packed_set(build, tmp_path, monkeypatch):
    monkeypatch.setattr(lm, "peak_flops", lambda device, dtype: 1e12)
    folder = write_set(tmp_path / "set", seconds=0.32)
    config = tiny_config(
        hidden_size=48,
        local_dim=32,
        vocab_size=build.tokenizer.size,
        audio_channels=len(SIZES),
        speech_vocab_size=tuple(size + 1 for size in SIZES),
        speech_zeroemb_idx=SIZES,
        delay_pattern=tuple(range(len(SIZES))),
        group_size=4,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    model = AudioLanguageModel(config, build.tokenizer.special)
    rates = {"patch_encoder": 0.01, "backbone": 0.01, "patch_decoder": 0.01}
    stage = recipe_of(rows=1, context=256, micro_batches=1, steps=STEPS, learning_rates=rates).stages["joint"]
    trainer = Trainer(model, stage, source(build, folder, rows=1), alone())

    def measured():
        found = {}
        for task in TASKS:
            batch = source(build, folder, TaskWeights(**{task: 1.0}), rows=1).batch(0, 0)
            assert {name for row in batch.tasks for name in row} == {task}
            with torch.no_grad():
                found[task] = losses(model, batch.input_ids, batch.labels, documents=batch.documents)
        return found

    before = measured()
    counted: dict[str, int] = {}
    for step in range(STEPS):
        read = [trainer.read(step, 0)]
        for task, labels in read[0].labels.items():
            counted[task] = counted.get(task, 0) + labels
        trainer.step(step, read)
    after = measured()
    assert set(counted) == set(TASKS)
    assert all(counted.values())
    for task in TASKS:
        if task != "speech_continuation":  # whose text is <|empty|> and its end
            assert after[task].text < 0.5 * before[task].text, task
        if task not in WRITTEN:
            assert after[task].channels.mean() < 0.9 * before[task].channels.mean(), task


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_labels_of_its_kind_alone(build, tmp_path, task):
    """Written answers label no codes; spoken ones every code of their patches, and the <|empty|> beside it."""
    batch = source(build, write_set(tmp_path / "set"), TaskWeights(**{task: 1.0}), rows=1).batch(0, 0)
    patches = (batch.labels[:, 0, ::4] == build.layout.special.empty).repeat_interleave(4, 1)
    assert bool(patches.any()) == (task not in WRITTEN)
    labels = batch.labels[:, 1:]
    is_code = (labels >= 0) & (labels < torch.tensor(SIZES)[:, None])  # the empty ids beside text are none
    assert torch.equal(is_code.all(1), patches)
    assert torch.equal(is_code.any(1), patches)
