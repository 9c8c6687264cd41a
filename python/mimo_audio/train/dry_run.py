"""What a recipe will cost, found without training: everything is built and run on torch's meta device.

Where a stage is small enough, a micro-batch of a step is timed on the real one too.
"""

import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mimo_audio.errors import AudioError
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train.audio_data import Batch
from mimo_audio.train.flops import matmul_flops
from mimo_audio.train.processes import Processes
from mimo_audio.train.recipe import Recipe, Stage1, Stage2
from mimo_audio.train.stage1 import ReconstructionStage
from mimo_audio.train.stage2 import AdversarialStage
from mimo_audio.train.tokenizer import make_data

BYTES_PER_SECOND = 15  # of text, about what is spoken
TIMED_BELOW = 4.0  # GB
MOMENTS = {torch.optim.Muon: 1, torch.optim.AdamW: 2}


def describe(recipe: Recipe, device: str) -> str:
    """Per stage: parameters, memory, operations and steps per hour; data that is missing is said, too."""
    stages: list[Stage1 | Stage2] = [stage for stage in (recipe.stage1, recipe.stage2) if stage]
    speeds = {name: matmul_flops(device, getattr(torch, name)) for name in {stage.precision for stage in stages}}
    return "\n".join(_describe(recipe, stage, device, speeds[stage.precision]) for stage in stages)


def _describe(recipe: Recipe, training: Stage1 | Stage2, device: str, speed: float) -> str:
    with torch.device("meta"):
        stage = _build(recipe, training, "meta")
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in stage.modules().items()}
    flops, saved = _cost(recipe, training, stage)
    weights = sum(t.nbytes for module in stage.modules().values() for t in module.state_dict().values())
    average = sum(t.nbytes for t in stage.model.state_dict().values())
    trained = [parameter for group in stage.parameter_groups for parameter in group]
    gradients = sum(p.nbytes for p in trained)
    moments = sum(
        MOMENTS[type(optimizer)] * p.nbytes
        for optimizer in stage.optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    )
    total = (weights + average + gradients + moments + saved) / 1e9
    if total < TIMED_BELOW:
        seconds = _time(recipe, training, device) * training.micro_batches
        hourly = f"{_round(3600 / seconds)} steps per hour on this {device}"
    else:
        bound = 3600 * speed / (flops * training.micro_batches)
        hourly = (
            f"at most {_round(bound)} steps per hour, at the {speed / 1e12:.2f} TFLOP/s of this {device}'s products"
        )
    sizes = ", ".join(f"{name} {count / 1e6:.1f}" for name, count in parameters.items() if count)
    audio = training.batch * training.micro_batches * training.crop / recipe.model.frame_rate
    return (
        f"{training.name}: {training.steps} steps of {training.micro_batches} x {training.batch} crops, {audio:.1f} s "
        f"of audio each ({audio * training.steps / 3600:.1f} h in all)\n"
        f"  data        {_data(recipe, training)}\n"
        f"  parameters  {sizes} million; {sum(p.numel() for p in trained) / 1e6:.1f} million trained\n"
        f"  memory      {total:.2f} GB: weights {weights / 1e9:.2f}, average {average / 1e9:.2f}, gradients "
        f"{gradients / 1e9:.2f}, optimizers {moments / 1e9:.2f}, kept for backward {saved / 1e9:.2f}\n"
        f"  speed       {flops * training.micro_batches / 1e12:.3f} TFLOP per step; {hourly}, in one process"
    )


def _data(recipe: Recipe, training: Stage1 | Stage2) -> str:
    try:
        return f"{make_data(recipe, training).recordings:,} recordings"
    except AudioError as error:
        return f"not ready: {error}"


def _round(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _build(recipe: Recipe, training: Stage1 | Stage2, device: str) -> ReconstructionStage | AdversarialStage:
    processes = Processes(0, 1, torch.device(device))
    if isinstance(training, Stage1):
        return ReconstructionStage(recipe, training, None, processes)
    return AdversarialStage(AudioTokenizer(recipe.model), training, processes)


def _time(recipe: Recipe, training: Stage1 | Stage2, device: str) -> float:
    """Seconds of a micro-batch on noise, forward and backward, at the last weights."""
    stage, batch = _build(recipe, training, device), _noise(recipe, training, device)
    times = []
    for _ in range(3):  # the first is slower
        start = time.perf_counter()
        stage.backward(training.steps - 1, 0, batch, 1.0)["loss"].item()
        times.append(time.perf_counter() - start)
    return min(times)


def _noise(recipe: Recipe, training: Stage1 | Stage2, device: str) -> Batch:
    """A micro-batch as large as they come."""
    config = recipe.model
    frame = config.stride_size * config.avg_pooler * config.hop_length
    utterances: list[Tensor] = []
    text = training.audio_to_text if isinstance(training, Stage1) else None
    if text:
        samples = round(text.seconds * config.sampling_rate / frame) * frame
        utterances = [0.1 * torch.randn(samples, device=device, dtype=torch.float32)] * text.batch
    crops = 0.1 * torch.randn(training.batch, training.crop * frame, device=device, dtype=torch.float32)
    texts = ["x" * round(text.seconds * BYTES_PER_SECOND)] * len(utterances) if text else []
    return Batch(crops, tuple(utterances), tuple(texts))


def _cost(recipe: Recipe, training: Stage1 | Stage2, stage: ReconstructionStage | AdversarialStage) -> tuple[int, int]:
    """Operations of a micro-batch at the last weights, forward and backward, and bytes kept in between."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    def give(tensor: Any) -> Any:
        return tensor

    own = sum(p.nbytes for module in stage.modules().values() for p in module.parameters())
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, give):
        stage.backward(training.steps - 1, 0, _noise(recipe, training, "meta"), 1.0)
    return counter.get_total_flops(), max(0, sum(kept.values()) - own)
