"""What can happen to a training run from outside: kill -9, a process that is lost or stuck, a full disk, NaN."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mimo_audio.files.output import OutputError
from mimo_audio.lm import AudioLanguageModel
from mimo_audio.released import checkpoint
from mimo_audio.train import distributed_checkpoint, lm
from mimo_audio.train.loop import run
from mimo_audio.train.recipe import TrainingError

from ..lm.conftest import SPECIAL, tiny_config
from .test_lm_training import records_of, steps_of, trainer_of, weights_of

RUN = Path(__file__).parent / "lm_run.py"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lm, "peak_flops", lambda device, dtype: 1e12)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them only wait for each other on models this small
    yield
    torch.set_num_threads(threads)


def started(folder: Path, changes: dict[str, object], *fault: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, RUN, folder, json.dumps(changes), *fault],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def done(folder: Path) -> int:
    """The step of the newest checkpoint."""
    path = distributed_checkpoint.latest(folder)
    return int(path.name.rsplit("-", 1)[1]) if path else 0


def check_model(folder: Path) -> None:
    """Whatever happened, model/ is one that loads."""
    checkpoint.load(AudioLanguageModel(tiny_config(), SPECIAL), folder / "model.safetensors")


def test_a_killed_run_loses_the_steps_since_its_checkpoint(tmp_path):
    """Killed twice, at whatever it was doing, then to the end: every step as if nothing had happened."""
    changes = {"steps": 400, "checkpoint_every": 5, "log_every": 1, "micro_batches": 1, "rows": 1}
    changes |= {"schedule": "constant", "warmup": 0}  # which depend on the steps in all
    killed = 0
    for wanted in (5, 20):
        process = started(tmp_path, changes)
        while process.poll() is None and done(tmp_path) < wanted:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        _, message = process.communicate()
        assert process.returncode == -signal.SIGKILL, message
        logged = [line for line in (tmp_path / "log.jsonl").read_text().splitlines() if line.endswith("}")]
        killed = json.loads(logged[-1])["step"]
        assert killed - 5 <= done(tmp_path) <= killed  # 5: while a checkpoint is written, it is the one before
        check_model(tmp_path / "model")
    changes["steps"] = killed + 3
    resumed = trainer_of(**changes)
    assert run(resumed, tmp_path, resumed.load(tmp_path))
    assert [record["step"] for record in records_of(tmp_path)] == list(range(1, killed + 4))
    whole = trainer_of(**changes)
    steps_of(whole, range(killed + 3))
    for name, weight in weights_of(whole).items():
        assert torch.equal(weight, weights_of(resumed)[name]), name


@pytest.mark.parametrize("fault", ["kill", "stop", "raise"])
def test_a_lost_process_is_one_line_in_the_others(tmp_path, fault):
    """Without a launcher that would end them, as under srun: what is left of the run ends itself, and can go on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    changes = {"steps": 400, "checkpoint_every": 3}
    processes = [started(tmp_path, changes, "8", fault, RANK=str(rank), **group) for rank in range(2)]
    try:
        _, message = processes[0].communicate(timeout=300)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 2, message
    lines = [line for line in message.splitlines() if "process 0 of 2" in line]
    assert len(lines) == 1
    assert "another has ended or does not answer" in lines[0]
    assert "Traceback" not in message
    assert done(tmp_path) in (3, 6)  # batches are read ahead of their step
    check_model(tmp_path / "model")
    assert trainer_of(**changes).load(tmp_path) in (3, 6)


@pytest.mark.parametrize("room", ["none", "for the model alone"])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, room):
    trainer = trainer_of()
    steps_of(trainer, range(1))
    trainer.save(tmp_path, 1)
    kept = weights_of(trainer)
    steps_of(trainer, range(1, 2))
    model = (tmp_path / "model" / "model.safetensors").stat().st_size
    most = max(path.stat().st_size for path in (tmp_path / "checkpoint-00000001").iterdir())
    assert model + 1000 < most
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if room == "none" else model + 1000, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot write, ") as caught:
            trainer.save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    again = trainer_of()
    assert again.load(tmp_path) == 1
    for name, weight in weights_of(again).items():
        assert torch.equal(weight, kept[name]), name
    check_model(tmp_path / "model")
    trainer.save(tmp_path, 2)
    assert again.load(tmp_path) == 2


def test_weights_that_become_nan_end_the_run_at_once(tmp_path, monkeypatch):
    trainer = trainer_of(steps=6, checkpoint_every=2, micro_batches=1)
    step = trainer.step

    def poisoned(number, batches):
        if number == 5:
            with torch.no_grad():
                trainer.model.lm_head.weight[3] = torch.nan
        return step(number, batches)

    monkeypatch.setattr(trainer, "step", poisoned)
    with pytest.raises(TrainingError, match="step 5: loss is nan; the last checkpoint is intact"):
        run(trainer, tmp_path, 0)
    again = trainer_of()
    assert again.load(tmp_path) == 4
    assert all(weight.isfinite().all() for weight in weights_of(again).values())
