"""Released checkpoints and our modules: safetensors only, memory-mapped, strict, one table of differing names.

A model's tensors are in model.safetensors or, for large models, in several such files (shards) that
model.safetensors.index.json names.
"""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mimo_audio.errors import ModelError
from mimo_audio.files.output import OutputError, atomic_output

LOG = logging.getLogger(__name__)
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9  # of a file written; larger models are split
FLOATING = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

# Our name -> the release's, where they differ.
RELEASED_NAMES = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"\bquantizer\.codebooks\.(\d+)\.", r"quantizer.vq.layers.\1._codebook."),
        (r"^backbone\.(transformer\.)?", "model."),
        (r"^patch_encoder\.transformer\.", "input_local_transformer."),
        (r"^patch_encoder\.projection\.", "speech_group_downcast."),
        (r"^patch_decoder\.input\.", "hidden_states_downcast."),
        (r"^patch_decoder\.transformer\.", "local_transformer."),
        (r"^patch_decoder\.heads\.", "local_transformer_lm_heads."),
        (r"^patch_decoder\.projection\.", "speech_embeddings_to_local."),
    )
)


def released_name(name: str) -> str:
    """The release's name of one of our tensors."""
    for ours, theirs in RELEASED_NAMES:
        name = ours.sub(theirs, name)
    return name


def locate(folder: Path) -> Path:
    """The file that `load` takes of a model folder. Raises ModelError if there is none."""
    for name in (SINGLE, INDEX):
        if (folder / name).is_file():
            return folder / name
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    hint = f"; {', '.join(pickles)} cannot be used, as loading a pickle may run any code" if pickles else ""
    raise ModelError(f"no model at {folder}: missing {SINGLE} or {INDEX}{hint}")


def load(
    module: nn.Module,
    path: Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    convert: Callable[[str, Tensor], Tensor] | None = None,
) -> None:
    """Gives the module the tensors of a released safetensors file, or of the shards that an index names.

    They go one by one to the device (default: the CPU) and dtype (default: that of the module's own tensors), so host
    memory holds at most one tensor more than the model. Bytes (uint8: quantised weights) stay, on the CPU, in the
    file's mapped pages, which the system reads when they are used. convert(name, tensor) may put another tensor in the
    place of the file's; bytes that it gives are taken as they are. A module on "meta" is given storage; tensors that
    the module has under several names stay one tensor. Raises ModelError that lists every missing, unexpected and
    misshaped one.
    """
    files: dict[str, Path] = {}
    shapes: dict[str, list[int]] = {}
    places = _places(path) if path.suffix == ".json" else {}
    for file in sorted(set(places.values())) or [path]:
        for name, shape in _read_shapes(file).items():
            if places.get(name, file) == file:  # of two tensors of a name, the one that the index means
                files[name], shapes[name] = file, shape
    LOG.debug("%s: %d tensors, to %s %s", path, len(shapes), device or "cpu", dtype or "as they are")
    own = module.state_dict(keep_vars=True)
    names: dict[int, list[str]] = {}  # of one tensor
    for name, tensor in own.items():
        names.setdefault(id(tensor), []).append(name)
    if problems := _differences(own, names, shapes):
        raise ModelError(f"{path}: {problems}")
    for aliases in names.values():
        source = next(name for name in map(released_name, aliases) if name in files)
        like = own[aliases[0]]
        read = _read(files[source], source)
        if like.dtype == torch.uint8 and read.dtype != torch.uint8:
            raise ModelError(f"{path}: {source}: expected uint8, got {str(read.dtype).removeprefix('torch.')}")
        if convert is not None:
            read = convert(aliases[0], read)
        if read.dtype == torch.uint8 and (like.dtype == torch.uint8 or convert is not None):
            tensor = read.to(device or "cpu")
        else:
            tensor = torch.empty(like.shape, dtype=dtype or like.dtype, device=device or "cpu")
            tensor.copy_(read)
        if isinstance(like, nn.Parameter):
            tensor = nn.Parameter(tensor, like.requires_grad and tensor.is_floating_point())
        for name in aliases:
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, tensor)


def _places(index: Path) -> dict[str, Path]:
    """The file of every tensor that an index names."""
    try:
        places = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        names = sorted(set(places.values()))
        plain = bool(names) and all(name == Path(name).name and name.endswith(".safetensors") for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"cannot read {index}: {error or type(error).__name__}") from error
    if not plain:
        raise ModelError(f"{index}: weight_map: expected names of .safetensors files beside it, got {names}")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(f"{index}: missing {', '.join(missing)}")
    return {tensor: index.parent / name for tensor, name in places.items()}


def _read_shapes(path: Path) -> dict[str, list[int]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def _read(path: Path, name: str) -> Tensor:
    """One tensor, in the mapped pages of a file that is opened for it alone: they go when the tensor goes."""
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def _differences(own: dict[str, Tensor], names: dict[int, list[str]], found: dict[str, list[int]]) -> str:
    wanted = {released_name(name): list(tensor.shape) for name, tensor in own.items()}
    groups = [[released_name(name) for name in aliases] for aliases in names.values()]
    kinds = {
        "missing": [group[0] for group in groups if not any(name in found for name in group)],
        "unexpected": [name for name in found if name not in wanted],
        "of the wrong shape": [
            f"{name} (expected {shape}, got {found[name]})"
            for name, shape in wanted.items()
            if name in found and shape != found[name]
        ],
    }
    return "; ".join(f"tensors {kind}: {', '.join(sorted(names))}" for kind, names in kinds.items() if names)


def floating_dtype(path: Path) -> torch.dtype | None:
    """That of the first floating-point tensor in a file or in the shards of an index; None without one."""
    places = _places(path) if path.suffix == ".json" else {}
    for file in sorted(set(places.values())) or [path]:
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    if dtype := FLOATING.get(opened.get_slice(name).get_dtype()):
                        return dtype
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot read {file}: {error}") from error
    return None


def save(module: nn.Module, path: Path) -> None:
    """Writes the module's tensors under their released names, whole or not at all. Raises OutputError."""
    _write(_distinct(module), path)


def save_folder(module: nn.Module, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """`save` to the folder's model.safetensors or, beyond `shard_bytes`, to shards and then their index.

    What the folder held of another model is removed, so that it never holds parts of two. Raises OutputError.
    """
    shards = _partition(_distinct(module), shard_bytes)
    stale = {folder / INDEX, *folder.glob("model-*-of-*.safetensors")}
    if len(shards) == 1:
        _write(shards[0], folder / SINGLE)
    else:
        _remove({folder / INDEX})  # until the new shards are all there
        files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
        for file, shard in zip(files, shards, strict=True):
            _write(shard, folder / file)
        index = {
            "metadata": {"total_size": sum(map(_bytes, shards))},
            "weight_map": {name: file for file, shard in zip(files, shards, strict=True) for name in shard},
        }
        with atomic_output(folder / INDEX, force=True) as partial:
            partial.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        stale = ({folder / SINGLE} | stale) - {folder / name for name in (*files, INDEX)}
    _remove(stale)


def _remove(paths: set[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot remove, {error.strerror or error}") from error


def _distinct(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors under released names; one that it has under several names, once."""
    distinct: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        distinct.setdefault(id(tensor), (released_name(name), tensor.detach()))
    return dict(distinct.values())


def _partition(tensors: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """Consecutive tensors in parts of at most `limit` bytes (or of one tensor)."""
    parts: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if parts[-1] and _bytes(parts[-1]) + tensor.nbytes > limit:
            parts.append({})
        parts[-1][name] = tensor
    return parts


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    with atomic_output(path, force=True) as partial:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, {"format": "pt"})
