"""Checkpoints of models that may be split among processes (torch DCP), in safetensors, read by any number of them.

A folder of the run holds checkpoint-STEP/, whole or not at all: written beside its place, then renamed.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

from mimo_audio.errors import MimoError, ModelError, first_line
from mimo_audio.files.output import OutputError
from mimo_audio.train.processes import Processes

NOTE, PREFIX, PARTIAL = "training.json", "checkpoint-", ".checkpoint.partial"


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run."""
    found = [path.parent for path in folder.glob(f"{PREFIX}*/{NOTE}") if path.parent.name[len(PREFIX) :].isdigit()]
    return max(found, key=lambda path: int(path.name[len(PREFIX) :]), default=None)


def save(
    folder: Path,
    step: int,
    recipe: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    processes: Processes,
) -> None:
    """Writes weights, moments, the step and what is to be known of the recipe; removes the checkpoint before.

    Called in all processes. Raises OutputError in all of them.
    """
    partial, place = folder / PARTIAL, folder / f"{PREFIX}{step:08}"
    with _told(processes, place):
        if processes.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
    with _told(processes, place), _quiet():
        dcp.save(
            _tensors(model, optimizer),
            storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True),
            no_dist=processes.world == 1,
        )
    with _told(processes, place):
        if processes.is_first:
            (partial / NOTE).write_text(json.dumps({"step": step, "recipe": recipe}), encoding="utf-8")
            for path in partial.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())  # before the rename: a power cut must not put empty files in their place
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
            for old in folder.glob(f"{PREFIX}*"):
                if old != place:
                    shutil.rmtree(old, ignore_errors=True)


def recipe_of(path: Path) -> dict[str, Any]:
    """What `save` noted of the recipe. Raises ModelError."""
    return dict(_note(path)["recipe"])


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes) -> int:
    """Restores what `save` wrote, from however many processes; returns the step. Raises ModelError."""
    step = int(_note(path)["step"])
    try:
        with _quiet():
            dcp.load(
                _tensors(model, optimizer),
                storage_reader=HuggingFaceStorageReader(str(path)),
                no_dist=processes.world == 1,
            )
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, dcp.CheckpointException) as error:
        raise ModelError(f"cannot resume from {path}: {_cause(error)}") from error
    return step


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors themselves, by names that do not depend on how they are split; moments begin as zeros."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not optimizer.state[parameter]:
                zeros = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
                optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **zeros}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    tensors: dict[str, Tensor] = {f"model.{name}": parameter.detach() for parameter, name in names.items()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"optimizer.{names[parameter]}.{key}": value for key, value in state.items()}
    return tensors


def _note(path: Path) -> dict[str, Any]:
    try:
        note = dict(json.loads((path / NOTE).read_text(encoding="utf-8")))
        return {"step": int(note["step"]), "recipe": dict(note["recipe"])}
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot resume from {path}: {error}") from error


@contextmanager
def _told(processes: Processes, place: Path) -> Iterator[None]:
    """An error of one process is raised in all."""
    failure: BaseException | None = None
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, dcp.CheckpointException) as error:
        failure = error
    if processes.any(failure is not None):
        cause = "another process could not" if failure is None else _cause(failure)
        raise OutputError(f"{place}: cannot write, {cause}") from failure


def _cause(error: BaseException) -> str:
    """What a person needs of an error, which DCP wraps with every process's traceback."""
    if isinstance(error, dcp.CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if isinstance(error, MimoError) else first_line(Exception(str(error)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that one process is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is", UserWarning)
        yield
