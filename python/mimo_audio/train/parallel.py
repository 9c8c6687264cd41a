"""Parallelism and memory as functions over a built model: model files know nothing of them.

All of them keep the names of the parameters.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.checkpoint import checkpoint

from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.losses import LossPass
from mimo_audio.lm.transformer import Block, Transformer
from mimo_audio.train.lm_recipe import Stage
from mimo_audio.train.lora import Lora, merged
from mimo_audio.train.processes import Processes
from mimo_audio.train.recipe import TrainingError


def arranged(processes: Processes, tensor_parallel: int) -> Processes:
    """All processes, `tensor_parallel` at a time on every micro-batch. Raises TrainingError if they do not divide."""
    if tensor_parallel == 1:
        return processes
    if processes.count % tensor_parallel:
        raise TrainingError(
            f"tensor_parallel: expected a divisor of the {processes.count} processes, got {tensor_parallel}"
        )
    mesh = _mesh(processes.device, processes.count // tensor_parallel, tensor_parallel)
    rank, peer = (mesh.get_local_rank(name) for name in ("data", "tensor"))
    return Processes(
        rank, processes.count // tensor_parallel, processes.device, tensor_parallel, peer, mesh["data"].get_group()
    )


@lru_cache
def _mesh(device: torch.device, data: int, tensor: int) -> DeviceMesh:
    return init_device_mesh(device.type, (data, tensor), mesh_dim_names=("data", "tensor"))


def distribute(loss_pass: LossPass, stage: Stage, processes: Processes) -> None:
    """Everything that a stage asks for. Raises TrainingError."""
    if processes.peers > 1:
        mesh = _mesh(processes.device, processes.count, processes.peers)
        tensor_parallel(loss_pass.model, mesh["tensor"])
    if stage.activation_checkpointing:
        checkpoint_activations(loss_pass.model)
    if stage.shard:
        if processes.world == 1:
            raise TrainingError("shard: expected several processes (torchrun), got one")
        shard(loss_pass, _mesh(processes.device, processes.count, processes.peers)["data"])


def stacks(model: AudioLanguageModel) -> dict[str, Transformer]:
    """The three block stacks by the name of their module."""
    return {
        "patch_encoder": model.patch_encoder.transformer,
        "backbone": model.backbone.transformer,
        "patch_decoder": model.patch_decoder.transformer,
    }


def blocks(model: AudioLanguageModel) -> Iterator[Block]:
    """All blocks."""
    for stack in stacks(model).values():
        for layer in stack.layers:
            assert isinstance(layer, Block)
            yield layer


def tensor_parallel(model: AudioLanguageModel, mesh: DeviceMesh) -> None:
    """Splits heads and feed-forward units of every block, and the text logits, among the mesh's processes.

    All of them compute the same micro-batch. Raises TrainingError for sizes that do not split.
    """
    count = mesh.size()
    for name, stack in stacks(model).items():
        shape = stack.shape
        for what, size in (("heads", shape.heads), ("key-value heads", shape.kv_heads), ("ffn units", shape.ffn_dim)):
            if size % count:
                raise TrainingError(f"tensor_parallel: expected a divisor of the {name}'s {size} {what}, got {count}")
    columns = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
    for block in blocks(model):
        plan = {name: ColwiseParallel() for name in columns}
        parallelize_module(
            block, mesh, {**plan, "self_attn.o_proj": RowwiseParallel(), "mlp.down_proj": RowwiseParallel()}
        )
    if not model.config.tie_word_embeddings:
        parallelize_module(model.lm_head, mesh, ColwiseParallel(output_layouts=Replicate()))


def checkpoint_activations(model: AudioLanguageModel) -> None:
    """Keeps only the inputs of blocks for the backward pass, which computes the rest again."""
    for block in blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def shard(loss_pass: LossPass, mesh: DeviceMesh) -> None:
    """FSDP2: every process keeps its part of each weight, gradient and moment; a block is whole while it runs.

    Gradients are summed over the processes, not averaged: losses are divided by the counts of the global batch.
    """
    for module in (*blocks(loss_pass.model), loss_pass):
        fully_shard(module, mesh=mesh)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def alike(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The tensors in lists that one fused operation takes: those that are split in the same way."""
    found: dict[object, list[Tensor]] = {}
    for tensor in tensors:
        kind = (tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else None
        found.setdefault(kind, []).append(tensor)
    return list(found.values())


def square_norm(tensors: Iterable[Tensor]) -> float:
    """The sum of squares of tensors, split or whole."""
    total = 0.0
    for group in alike(tensors):
        norm = torch.nn.utils.get_total_norm(group)
        total += float(norm.full_tensor() if isinstance(norm, DTensor) else norm) ** 2
    return total


@torch.no_grad()
def save_pretrained(model: AudioLanguageModel, lora: Lora | None, folder: Path, processes: Processes) -> None:
    """`model.save_pretrained`, of weights that may be split and have adapters, which are merged into them.

    Called in all processes. Raises OutputError.
    """
    if lora is None and not any(isinstance(p, DTensor) for p in model.parameters()):
        if processes.is_first:
            model.save_pretrained(folder)
        return
    tensors = {}
    for name, tensor in model.state_dict().items():  # one after another, to the host of the first process
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if processes.is_first:
            tensors[name] = whole.detach().cpu()
    if processes.is_first:
        with torch.device("meta"):
            plain = AudioLanguageModel(model.config, model.special, model.text_folder)
        plain.load_state_dict(merged(tensors, lora) if lora else tensors, assign=True)
        plain.save_pretrained(folder)
