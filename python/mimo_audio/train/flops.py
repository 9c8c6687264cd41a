"""Operations that a training step needs, and those that a device could do meanwhile: model-FLOP utilisation (MFU).

A matrix product of an activation counts 2 operations per weight forward and 4 backward. Only what the losses need is
counted, whoever computes it how: no padding, no logits without a label, no attention across documents or to later
positions, nothing that activation checkpointing does twice.
"""

import time

import torch
from torch import nn

from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.losses import Packed
from mimo_audio.lm.transformer import StackShape, Transformer

PEAKS = {  # bfloat16 operations per second, dense, as the maker says
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "4090": 165e12,
}


def step_flops(model: AudioLanguageModel, packed: Packed, audio: bool) -> float:
    """Forward and backward of a micro-batch; audio: with the patch decoder's losses."""
    lengths = packed.cu_seqlens.diff().double()
    size, steps = model.config.group_size, model.config.patch_steps
    is_patch = packed.groups[:, 0, 0] == model.special.empty
    patches, positions, labelled = int(is_patch.sum()), len(packed.groups), len(packed.codes)
    encoder, backbone, decoder = model.patch_encoder, model.backbone.transformer, model.patch_decoder
    pairs = patches * (size * (size + 1) / 2 if encoder.causal else size**2)
    multiplied: float = positions * _weights(backbone) + len(packed.text) * model.lm_head.weight.numel()
    multiplied += patches * (size * _weights(encoder.transformer) + encoder.projection.weight.numel())
    multiplied += _attention(backbone.shape, float((lengths * (lengths + 1) / 2).sum()))
    multiplied += _attention(encoder.transformer.shape, pairs)
    if audio:
        per_patch = steps * _weights(decoder.transformer) + decoder.input.weight.numel()
        per_patch += size * sum(p.numel() for p in decoder.heads.parameters())
        per_patch += 0 if decoder.projection is None else (steps - 1) * decoder.projection.weight.numel()
        multiplied += labelled * per_patch
        multiplied += _attention(decoder.transformer.shape, labelled * steps * (steps + 1) / 2)
    return 6.0 * multiplied


def _weights(stack: Transformer) -> int:
    """Weights that every row of a stack is multiplied with."""
    return sum(p.numel() for module in stack.modules() if isinstance(module, nn.Linear) for p in [module.weight])


def _attention(shape: StackShape, pairs: float) -> float:
    """Multiplications of scores and weighted sums, for so many pairs of query and key."""
    return 2 * shape.layers * shape.heads * shape.head_dim * pairs


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second: the maker's number for a known GPU in bfloat16, else what a large product reaches here."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        known = [peak for words, peak in PEAKS.items() if all(word in name for word in words.split())]
        if known:
            return known[0]
    return matmul_flops(device, dtype)


def matmul_flops(device: torch.device | str, dtype: torch.dtype, size: int = 2048) -> float:
    """Operations per second of a large matrix product here: the best of many, as a shared machine has slow moments."""
    a = torch.ones(size, size, device=device, dtype=dtype)
    times = []
    for _ in range(16):
        start = time.perf_counter()
        (a @ a).sum().item()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)
