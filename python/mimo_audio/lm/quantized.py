"""Quantised weights: which matrices of a language model have 8 or 4 bits, and how its config.json says so.

A quantised `Linear` is one whose weight is the uint8 matrix of `mimo_audio_native.quantize_weight`: the decode ops and
`linear` take it as it is. The matrices of all three stacks are of the chosen format, and so are what leads into and out
of them; `lm_head`, which decides between text and speech at every position, keeps 8 bits. Embeddings, norms, biases and
the patch decoder's small heads stay as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mimo_audio.errors import ModelError
from mimo_audio.lm.transformer import Linear
from mimo_audio_native import quantize_weight
from mimo_audio_native.ops.quantized_linear import row_bytes

Model: TypeAlias = Any  # an AudioLanguageModel, whose module imports this one

METHOD = "mimo-audio-native"
FORMATS = {"int8": 8, "int4": 4}
CONFIG_KEY = "quantization_config"
KEPT = ("patch_decoder.heads.", "patch_decoder.projection.")
ALWAYS_INT8 = "lm_head.weight"


@dataclass(frozen=True)
class Quantization:
    """int8, with a scale per row, or int4, with a scale per `group` (32 or 128) neighbours of a row."""

    bits: int
    group: int = 32

    @classmethod
    def named(cls, name: "str | Quantization | None", group: int = 32) -> "Quantization | None":
        """Of "int8" or "int4"; None stays None. Raises ModelError."""
        if name is None or isinstance(name, cls):
            return name
        if name not in FORMATS:
            raise ModelError(f"quantize: expected int8 or int4, got {name!r}")
        return cls(FORMATS[name], group)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Quantization | None":
        """What a config.json says of the weights beside it; None: they are not quantised. Raises ModelError."""
        stored = config.get(CONFIG_KEY)
        if stored is None:
            return None
        try:
            method, bits, group = stored["quant_method"], stored["bits"], stored["group_size"]
            row_bytes(128, bits, group)
        except (TypeError, KeyError, ValueError) as error:
            raise ModelError(f"config: {CONFIG_KEY}: not one of this package ({error})") from error
        if method != METHOD:
            raise ModelError(f"config: {CONFIG_KEY}: expected quant_method {METHOD}, got {method!r}")
        return cls(bits, group)

    def to_config(self) -> dict[str, Any]:
        """The entry of config.json."""
        return {"quant_method": METHOD, "bits": self.bits, "group_size": self.group}

    def __str__(self) -> str:
        return "int8" if self.bits == 8 else f"int4, group {self.group}"


def formats(model: Model, quantization: Quantization) -> dict[str, Quantization]:
    """The names of the weights that are quantised, and how. Raises ModelError for widths that do not allow it."""
    tied = model.config.tie_word_embeddings
    found, problems = {}, []
    for name, module in model.named_modules():
        weight = f"{name}.weight"
        if not isinstance(module, Linear) or weight.startswith(KEPT) or (tied and weight == ALWAYS_INT8):
            continue
        found[weight] = Quantization(8) if weight == ALWAYS_INT8 else quantization
        try:
            row_bytes(module.in_features, found[weight].bits, found[weight].group)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ModelError(f"{quantization}: {problems[0]}" + (f", and {len(problems) - 1} more" * (len(problems) > 1)))
    return found


def expect(model: Model, quantization: Quantization) -> None:
    """Gives a model on "meta" the shapes of quantised weights, for a checkpoint that holds them."""
    for name, how in formats(model, quantization).items():
        module = model.get_submodule(name.removesuffix(".weight"))
        assert isinstance(module, Linear)
        shape = (module.out_features, row_bytes(module.in_features, how.bits, how.group))
        module.weight = nn.Parameter(torch.empty(shape, dtype=torch.uint8, device="meta"), requires_grad=False)


def converter(model: Model, quantization: Quantization) -> Callable[[str, Tensor], Tensor]:
    """What `checkpoint.load` does to the tensors of a model that is quantised while it is loaded, with a bar."""
    wanted = formats(model, quantization)
    bar = tqdm(total=len(wanted), desc=f"quantize ({quantization})", unit="matrix", leave=False, disable=None, delay=2)

    def convert(name: str, tensor: Tensor) -> Tensor:
        if name not in wanted:
            return tensor
        try:
            packed = quantize_weight(tensor, wanted[name].bits, wanted[name].group)
        except ValueError as error:
            raise ModelError(f"{name}: {error}") from error
        bar.update()
        if bar.n == bar.total:
            bar.close()
        return packed

    return convert


@torch.no_grad()
def quantize(model: Model, quantization: Quantization) -> Model:
    """Quantises a model in place; it can no longer be trained. Raises ModelError."""
    if Quantization.of(model.config.extra) is not None:
        raise ModelError("model: expected weights that are not quantised, got those of a quantised model")
    convert = converter(model, quantization)
    for name in formats(model, quantization):
        module = model.get_submodule(name.removesuffix(".weight"))
        packed = convert(name, module.get_parameter("weight"))
        module.weight = nn.Parameter(packed, requires_grad=False)
    note(model, quantization)
    return model


def note(model: Model, quantization: Quantization) -> None:
    """Writes it into the model's configuration, which is saved with the weights."""
    config = model.config.to_dict() | {CONFIG_KEY: quantization.to_config()}
    model.config = type(model.config).from_dict(config)
