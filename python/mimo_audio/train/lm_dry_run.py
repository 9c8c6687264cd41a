"""What a recipe of language-model training will cost, found without training: memory per GPU by part, speed, days.

Parameters are counted on torch's meta device, what a block keeps for its gradient by running one there; operations are
those of `mimo_audio.train.flops`. Rows are taken as full, of documents of a typical length, half of them patches.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.lm.losses import LOGITS_AT_ONCE, Packed
from mimo_audio.lm.transformer import Block, StackShape, patch_attention, window_attention
from mimo_audio.released import hub
from mimo_audio.text import SpecialTokens
from mimo_audio.train.flops import PEAKS, step_flops
from mimo_audio.train.lm_recipe import LanguageModelRecipe, Stage
from mimo_audio.train.lm_start import MODULES, module_of

DOCUMENT = 1024  # positions
UTILISATION = 0.4  # of the GPUs' peak, which good code reaches at such sizes; `train lm` logs its own as "mfu"
SPARE = 0.9  # of a GPU's memory
SPECIAL = SpecialTokens(**dict.fromkeys(SpecialTokens.__dataclass_fields__, 0))


@dataclass(frozen=True)
class Cluster:
    """GPUs of a kind (a name of PEAKS), and their memory each."""

    gpus: int = 64
    kind: str = "H100"
    gigabytes: float = 80

    @property
    def peak(self) -> float:
        """Operations per second of one, in bfloat16."""
        return PEAKS[self.kind]


def describe(recipe: LanguageModelRecipe, cluster: Cluster) -> str:
    """Per stage: parameters, operations, days, and the memory of every way to split the work. Raises ModelError."""
    config = recipe.model
    if config is None:
        assert recipe.start
        config = LanguageModelConfig.load(hub.find_folder(recipe.start, "language model") / "config.json")
    with torch.device("meta"):
        model = AudioLanguageModel(config, SPECIAL)
    return "\n".join(_describe(model, name, stage, cluster) for name, stage in recipe.stages.items())


def _describe(model: AudioLanguageModel, name: str, stage: Stage, cluster: Cluster) -> str:
    config = model.config
    counts: Counter[str] = Counter()
    for parameter, tensor in model.named_parameters():
        counts[module_of(parameter)] += tensor.numel()
    audio = stage.kind != "understanding"
    row = _typical(config, stage.context)
    positions = stage.rows * stage.context * stage.micro_batches
    flops = step_flops(model, row, audio) * stage.rows * stage.micro_batches
    speed = cluster.gpus * cluster.peak * UTILISATION
    lines = [
        f"{name} ({stage.kind}): {stage.steps:,} steps of {positions / 1e6:.3g} M positions "
        f"({positions * stage.steps / 1e9:.4g} G in all)",
        f"  parameters  {', '.join(f'{module} {counts[module] / 1e6:.1f}' for module in MODULES)} million",
        f"  operations  {flops / 1e15:.4g} PFLOP a step, {flops / positions / 1e9:.3g} GFLOP a position",
        f"  time        {flops * stage.steps / speed / 86400:.3g} days on {cluster.gpus} {cluster.kind} at "
        f"{UTILISATION:.0%} of their peak: {positions * speed / flops:,.0f} positions/s",
        f"  memory, GB per GPU of {cluster.gigabytes:g}, rows of a micro-batch {stage.rows}:",
    ]
    trained = sum(n for module, n in counts.items() if getattr(stage.learning_rates, module) > 0)
    for ways in _arrangements(stage, cluster):
        parts = _memory(model, stage, row, sum(counts.values()), trained, **ways)
        total = sum(parts.values())
        fits = "fits" if total < SPARE * cluster.gigabytes else "too large"
        mine = " <- the recipe's" if ways == _own(stage, cluster) else ""
        listed = ", ".join(f"{part} {size:.1f}" for part, size in parts.items())
        lines.append(f"    {_words(**ways):58} {total:7.1f} {fits} ({listed}){mine}")
    return "\n".join(lines)


def _own(stage: Stage, cluster: Cluster) -> dict[str, Any]:
    shards = max(1, cluster.gpus // stage.tensor_parallel) if stage.shard else 1
    return {"shards": shards, "tensor": stage.tensor_parallel, "again": stage.activation_checkpointing}


def _arrangements(stage: Stage, cluster: Cluster) -> list[dict[str, Any]]:
    """The recipe's own and the usual ones."""
    ways = [{"shards": 1, "tensor": 1, "again": False}]
    for tensor in (1, 2, 4, 8):
        if cluster.gpus % tensor == 0 and cluster.gpus > tensor:
            ways += [{"shards": cluster.gpus // tensor, "tensor": tensor, "again": again} for again in (False, True)]
    own = _own(stage, cluster)
    return ways if own in ways else [own, *ways]


def _words(shards: int, tensor: int, again: bool) -> str:
    split = "data parallel" if shards == 1 else f"sharded {shards} ways"
    return f"{split}{f', tensor parallel {tensor}' if tensor > 1 else ''}{', activations again' if again else ''}"


def _memory(
    model: AudioLanguageModel,
    stage: Stage,
    row: Packed,
    total: int,
    trained: int,
    shards: int,
    tensor: int,
    again: bool,
) -> dict[str, float]:
    """Gigabytes per GPU by part."""
    config = model.config
    size = 2 if stage.precision == "pure_bfloat16" else 4
    split = shards * tensor
    patches, labelled = int((row.groups[:, 0, 0] == SPECIAL.empty).sum()), len(row.codes)
    stacks: list[tuple[StackShape, int, int]] = [
        (config.backbone, 0, len(row.groups)),
        (config.patch_encoder, config.group_size, patches),
    ]
    if stage.kind != "understanding":
        stacks.append((config.patch_decoder, config.patch_steps, labelled))
    kept = 0.0
    for shape, length, count in stacks:
        inputs = count * max(1, length) * shape.width * 4
        whole = _kept(shape, length, count, stage) / tensor
        kept += inputs * shape.layers + whole if again else whole * shape.layers
    logits = min(len(row.text) * config.vocab_size, LOGITS_AT_ONCE) * 8
    block = max(p.numel() for p in (model.lm_head.weight, model.backbone.embed_tokens.weight)) * 2 if shards > 1 else 0
    return {
        "weights": total * size / split / 1e9 + block * size / 1e9,
        "gradients": trained * size / split / 1e9,
        "moments": 2 * trained * size / split / 1e9,
        "activations": stage.rows * (kept + logits) / 1e9,
    }


def _kept(shape: StackShape, length: int, count: int, stage: Stage) -> int:
    """Bytes that a block keeps for its gradient: of `count` packed positions, or patches of `length` positions."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    dtype = torch.float32 if stage.precision == "float32" else torch.bfloat16
    with torch.device("meta"):
        block = Block(shape).to(dtype)
        x = torch.empty((count, length, shape.width) if length else (count, shape.width), dtype=dtype)
        cos = torch.empty(max(length, count), shape.head_dim // 2)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if length:
                return patch_attention(length, shape.head_dim)(q, k, v, cos, cos, True)
            k, v = (y.repeat_interleave(q.shape[1] // y.shape[1], 1) for y in (k, v))
            return window_attention(shape.head_dim)(q, k, v, None, -1, 0, cos, cos)

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            block(x.requires_grad_(), attend)
    own = sum(p.nbytes for p in block.parameters()) + cos.nbytes
    return max(0, sum(kept.values()) - own)


def _typical(config: LanguageModelConfig, context: int) -> Packed:
    """A full row: documents of a typical length, every other position a patch, all of them labelled."""
    groups = torch.zeros(context, 1 + config.audio_channels, config.group_size, dtype=torch.int64)
    groups[::2, 0] = SPECIAL.empty + 1
    starts = torch.tensor([*range(0, context, DOCUMENT), context], dtype=torch.int32)
    positions = torch.arange(context)
    patches = positions[1::2]
    codes = torch.zeros(len(patches), config.group_size, config.audio_channels, dtype=torch.int64)
    return Packed(groups, starts, min(DOCUMENT, context), positions, positions, torch.ones(context), patches, codes)
