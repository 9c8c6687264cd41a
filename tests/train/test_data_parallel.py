"""Two processes train as one does: gradients, codebook averages, k-means start and revival, both stages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mimo_audio.train.processes import Processes
from mimo_audio.train.recipe import TrainingError
from mimo_audio.train.tokenizer import Trainer

from .conftest import load, trainer_of, write


def train_in_processes(recipe: Path, out: Path, count: int) -> None:
    """`mimo-audio train tokenizer`, under torchrun if there are several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    command = [sys.executable, *launcher, "-m", "mimo_audio", "train", "tokenizer"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--config", recipe, "--out", out, "--device", "cpu"],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_two_processes_equal_one(with_text, tmp_path):
    for stage in ("stage1", "stage2"):
        with_text[stage] |= {"micro_batches": 2, "steps": 5, "log_every": 1, "checkpoint_every": 5}
    recipe = write(tmp_path, with_text)
    for count in (1, 2):
        train_in_processes(recipe, tmp_path / str(count), count)
    for stage in ("stage1", "stage2"):
        logs = []
        for count in (1, 2):
            lines = (tmp_path / str(count) / stage / "log.jsonl").read_text().splitlines()
            logs.append([json.loads(line) for line in lines])
        assert len(logs[0]) == len(logs[1]) == 5
        for one, two in zip(*logs, strict=True):
            for record in (one, two):
                del record["steps_per_second"]
            assert one.pop("perplexity") == pytest.approx(two.pop("perplexity"), abs=1)
            assert two == pytest.approx(one, rel=2e-3, abs=2e-4)
        one, two = (load_file(tmp_path / str(count) / stage / "checkpoint.safetensors") for count in (1, 2))
        for name, tensor in one.items():
            if ".embed" in name or ".cluster_size" in name:
                assert (tensor - two[name]).abs().max() <= 1e-3 * tensor.abs().max() + 1e-4, name


def test_parts_must_split_among_the_processes(values, tmp_path):
    trainer = trainer_of(load(tmp_path, values, micro_batches=3))
    with pytest.raises(TrainingError, match="micro_batches: expected a multiple of the 2 processes, got 3"):
        Trainer(trainer.stage, trainer.data, Processes(0, 2, torch.device("cpu")), {})
