"""Starting weights, optimizers and the learning rate's course."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.transformer import TransformerLayer
from mimo_audio.train import codebooks
from mimo_audio.train.recipe import Recipe, TrainingError

TYPICAL_LOG_MEL, LOG_MEL_SPREAD = -6.0, 4.0  # of speech


@torch.no_grad()
def initialise(model: AudioTokenizer) -> None:
    """Starting weights: every block an identity, the input about normalised, the head's frames pulses in mid-frame."""
    first, head = model.encoder.conv1, model.vocoder.head
    first.weight.div_(LOG_MEL_SPREAD)
    assert first.bias is not None
    first.bias.copy_(-TYPICAL_LOG_MEL * first.weight.sum((1, 2)))
    for layer in model.modules():
        if isinstance(layer, TransformerLayer):
            layer.self_attn.out_proj.weight.zero_()
            layer.fc2.weight.zero_()
    bins = head.out.out_features // 2
    head.out.weight.normal_(std=0.02)
    head.out.bias[:bins] = -2.0
    head.out.bias[bins:] = math.pi * torch.arange(bins) % (2 * math.pi)


def read_start(recipe: Recipe, start: str | Path) -> AudioTokenizer:
    """The tokenizer that a stage begins with. Raises ModelError, or TrainingError if it is not the recipe's."""
    model = AudioTokenizer.from_pretrained(start)
    ours, theirs = (replace(config, extra={}).to_dict() for config in (recipe.model, model.config))
    wrong = [f"{key} {ours[key]}, got {theirs[key]}" for key in ours if ours[key] != theirs[key]]
    if wrong:
        raise TrainingError(f"start {start}: expected the recipe's model: {'; '.join(wrong)}")
    if not all(book.inited for book in codebooks.layers(model.quantizer)):
        raise TrainingError(f"start {start}: expected trained codebooks, got some that never started")
    return model


def make_optimizers(model: nn.Module, learning_rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the Transformers, AdamW for everything else; one learning rate fits both."""
    named = [(f".{name}", parameter) for name, parameter in model.named_parameters()]
    inner = [p for name, p in named if ".layers." in name and p.dim() == 2]
    outer = [p for name, p in named if not (".layers." in name and p.dim() == 2)]
    decayed = [p for p in outer if p.dim() > 1]
    plain = [p for p in outer if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(inner, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True),
    ]


def schedule(step: int, warmup: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to 1%."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
