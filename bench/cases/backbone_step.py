"""backbone_step: one new position per row against a cache of keys and values, at nano and middle size.

A GPU also gets the released 7B in half precision.

The definition is the published code's way: a Python call per layer and operation, caches that grow by concatenation.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

import mimo_audio_native as mn
from bench.case import Case
from bench.cases.language_model import MIDDLE, NANO, RELEASED, SPECIAL
from bench.step_by_step import Cache, StepByStep
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.lm.transformer import StackShape

LENGTHS, BATCHES = (100, 2000), (1, 8)


def cases(device: str, dtype: torch.dtype) -> Iterator[Case]:
    sizes = {"nano": NANO, "middle": MIDDLE}
    if device == "cuda" and dtype.itemsize == 2:
        sizes["released"] = RELEASED
    for name, config in sizes.items():
        yield from _cases(name, config, device, dtype)


def _cases(name: str, config: LanguageModelConfig, device: str, dtype: torch.dtype) -> Iterator[Case]:
    @cache
    def model() -> AudioLanguageModel:
        torch.manual_seed(0)
        small = replace(config, vocab_size=512, local_layers=1, input_local_layers=1)  # only the backbone counts
        with torch.device(device):
            return AudioLanguageModel(small, SPECIAL).to(dtype).eval()

    for length in LENGTHS:
        for batch in BATCHES:
            yield _case(f"backbone_step/{name}/{length}x{batch}", config.backbone, model, length, batch, device, dtype)


def _case(
    name: str,
    shape: StackShape,
    model: Callable[[], AudioLanguageModel],
    length: int,
    batch: int,
    device: str,
    dtype: torch.dtype,
) -> Case:
    weights = shape.width * (2 * shape.head_dim * (shape.heads + shape.kv_heads) + 3 * shape.ffn_dim)
    cached = 2 * batch * shape.kv_heads * length * shape.head_dim

    @cache
    def inputs() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        sizes = (shape.layers, 2, batch, shape.kv_heads, length + 1, shape.head_dim)
        hidden, room = (torch.randn(size, generator=generator) for size in ((batch, shape.width), sizes))
        return hidden.to(device, dtype), room.to(device, dtype)

    @torch.no_grad()
    def native() -> Tensor:
        hidden, room = inputs()
        transformer = model().backbone.transformer
        return mn.backbone_step(
            hidden,
            transformer.tensors(),
            transformer.norm.weight,
            room,
            length,
            None,
            *transformer.rotary(length + 1, torch.device(device)),
            shape.heads,
            shape.eps,
        )

    @cache
    def plain_cache() -> tuple[StepByStep, Cache]:
        keys_and_values = inputs()[1][..., :length, :].clone()
        return StepByStep(model()), [(keys, values) for keys, values in keys_and_values]

    @torch.no_grad()
    def plain() -> Tensor:
        step_by_step, caches = plain_cache()
        return step_by_step.stack("model", shape, inputs()[0].unsqueeze(1), list(caches), True)[:, 0]

    def check(ours: Tensor, wanted: Tensor) -> None:
        error = float((ours - wanted).float().norm() / wanted.float().norm())  # the plain form rounds every activation
        assert error < (1e-5 if dtype == torch.float32 else 0.03), f"relative error {error:.1e}"

    return Case(
        name=name,
        native=native,
        reference=plain,
        check=check,
        bytes=float(shape.layers * (weights + cached) * dtype.itemsize),
        cuda_seconds=4.2e-3 if name.startswith("backbone_step/released") and batch == 1 else None,
    )
