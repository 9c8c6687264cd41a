"""Everything a run needs to continue exactly where it was, in one safetensors file that appears whole or not at all."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mimo_audio.errors import ModelError
from mimo_audio.files.output import atomic_output


def save(
    path: Path,
    step: int,
    recipe: Mapping[str, Any],
    modules: dict[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Writes the modules' tensors, the optimizers' state, the step, and what is to be known of the recipe.

    Raises OutputError.
    """
    tensors = {f"{name}.{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer{number}.{parameter}.{key}": value for key, value in state.items()}
    with atomic_output(path, force=True) as partial:
        save_file(
            {key: t.detach().cpu().contiguous() for key, t in tensors.items()},
            partial,
            {"training": json.dumps({"step": step, "recipe": recipe})},
        )
        with open(partial, "rb") as file:
            os.fsync(file.fileno())  # before the rename: a power cut must not put an empty file in the last one's place


def recipe_of(path: Path) -> dict[str, Any]:
    """What `save` noted of the recipe. Raises ModelError."""
    try:
        with safe_open(path, "pt") as file:
            return dict(json.loads(file.metadata()["training"])["recipe"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot resume from {path}: {error}") from error


def load(path: Path, modules: dict[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Restores what `save` wrote into modules and optimizers of the same shape; returns the step. Raises ModelError."""
    try:
        with safe_open(path, "pt") as file:
            step = int(json.loads(file.metadata()["training"])["step"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        for name, module in modules.items():
            module.load_state_dict(
                {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot resume from {path}: {error}") from error
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            owner, _, rest = key.partition(".")
            if owner == f"optimizer{number}":
                parameter, _, name = rest.partition(".")
                state.setdefault(int(parameter), {})[name] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
