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


def train(folder: Path, count: int, until: int = 4, resume: bool = False, **changes: object) -> list[dict[str, float]]:
    """The numbers of the steps that so many processes have trained."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    arguments = [PROCESS, folder, json.dumps({**BASE, **changes}), "resume" if resume else "new", str(until)]
    done = subprocess.run(
        [sys.executable, *launcher, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
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


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]]]:
    """One process's run."""
    folder = tmp_path_factory.mktemp("one")
    return folder, train(folder, 1)


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (2, {}),
        (2, {"shard": True}),
        (2, {"tensor_parallel": 2}),
        (4, {"shard": True, "tensor_parallel": 2, "activation_checkpointing": True}),
    ],
    ids=["data", "sharded", "tensor", "sharded-tensor"],
)
def test_processes_equal_one(one, tmp_path, count, changes):
    agree(one[0], tmp_path, one[1], train(tmp_path, count, **changes))


def test_a_run_goes_on_with_another_number_of_processes(one, tmp_path):
    train(tmp_path, 4, 2, shard=True)
    found = train(tmp_path, 2, 3, resume=True, shard=True)
    found += train(tmp_path, 1, 4, resume=True)
    agree(one[0], tmp_path, one[1][2:], found)
