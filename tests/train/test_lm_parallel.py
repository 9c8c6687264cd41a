"""Several processes train as one does: data parallel, sharded, tensor parallel, both; resumed by another number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

PROCESS = Path(__file__).parent / "lm_process.py"
BASE = {"micro_batches": 4, "rows": 1, "steps": 4}


def train(count: int, *jobs: tuple[Path, dict[str, object], int, int]) -> None:
    """Jobs of lm_process.py in so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    work = [[str(folder), {**BASE, **changes}, first, until] for folder, changes, first, until in jobs]
    done = subprocess.run(
        [sys.executable, *launcher, PROCESS, json.dumps(work)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def losses_of(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "losses.json").read_text())


def agree(one: Path, other: Path, losses: list[dict[str, float]], others: list[dict[str, float]]) -> None:
    for wanted, found in zip(losses, others, strict=True):
        timed = {"mfu"}
        keys = wanted.keys() - timed - {name for name in wanted if name.startswith("labels/")}
        assert {key: found[key] for key in keys} == pytest.approx({key: wanted[key] for key in keys}, rel=2e-4)
    weights, found = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert weights.keys() == found.keys()
    for name, tensor in weights.items():
        assert (tensor - found[name]).abs().max() <= 2e-4 * tensor.abs().max() + 2e-5, name


def test_processes_equal_one(tmp_path):
    one, data, sharded, tensor, both, handed_on = (tmp_path / str(number) for number in range(6))
    train(1, (one, {}, 0, 4))
    train(2, (data, {}, 0, 4), (sharded, {"shard": True}, 0, 4), (tensor, {"tensor_parallel": 2}, 0, 4))
    everything = {"shard": True, "tensor_parallel": 2, "activation_checkpointing": True}
    train(4, (both, everything, 0, 4), (handed_on, {"shard": True}, 0, 2))
    for other in (data, sharded, tensor, both):
        agree(one, other, losses_of(one), losses_of(other))
    train(2, (handed_on, {"shard": True}, 2, 3))
    third = losses_of(handed_on)
    train(1, (handed_on, {}, 3, 4))
    agree(one, handed_on, losses_of(one)[2:], third + losses_of(handed_on))
