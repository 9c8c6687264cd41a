"""Released checkpoints and our modules: safetensors only, memory-mapped, strict, one table of differing names."""

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mimo_audio.errors import ModelError
from mimo_audio.files import atomic_output

# Our name -> the release's, where they differ.
RELEASED_NAMES = ((re.compile(r"\bquantizer\.codebooks\.(\d+)\."), r"quantizer.vq.layers.\1._codebook."),)


def released_name(name: str) -> str:
    """The release's name of one of our tensors."""
    for ours, theirs in RELEASED_NAMES:
        name = ours.sub(theirs, name)
    return name


def load(module: nn.Module, path: Path) -> None:
    """Gives the module the tensors of a released safetensors file, as float32; a module on "meta" gets its storage.

    Raises ModelError that lists every missing, unexpected and misshaped tensor.
    """
    wanted = {released_name(name): (name, tensor) for name, tensor in module.state_dict().items()}
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            problems = _differences({name: list(tensor.shape) for name, (_, tensor) in wanted.items()}, shapes)
            if problems:
                raise ModelError(f"{path}: {problems}")
            state = {ours: file.get_tensor(name).to(tensor.dtype) for name, (ours, tensor) in wanted.items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    module.load_state_dict(state, assign=True)


def _differences(wanted: dict[str, list[int]], found: dict[str, list[int]]) -> str:
    misshaped = [
        f"{name} (expected {wanted[name]}, got {found[name]})"
        for name in wanted
        if name in found and wanted[name] != found[name]
    ]
    kinds = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of the wrong shape": misshaped,
    }
    return "; ".join(f"tensors {kind}: {', '.join(sorted(names))}" for kind, names in kinds.items() if names)


def save(module: nn.Module, path: Path) -> None:
    """Writes the module's tensors under their released names, whole or not at all. Raises OutputError."""
    state = {released_name(name): tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with atomic_output(path, force=True) as partial:
        save_file(state, partial, {"format": "pt"})
