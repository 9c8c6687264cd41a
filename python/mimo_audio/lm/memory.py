"""How much memory a language model takes: its weights in each format, keys and values, and how many streams fit."""

from dataclasses import fields

import torch

from mimo_audio.lm.config import LanguageModelConfig
from mimo_audio.lm.model import AudioLanguageModel
from mimo_audio.lm.quantized import Quantization, formats
from mimo_audio.text import SpecialTokens
from mimo_audio_native.ops.quantized_linear import row_bytes

FORMATS = ("float32", "bfloat16", "int8", "int4")
PAGE = 256  # positions that the engine reserves at a time
USABLE = 0.9  # of a device's memory: the rest is for activations, and for what else runs there


def on_meta(config: LanguageModelConfig) -> AudioLanguageModel:
    """The model's shapes without its weights."""
    with torch.device("meta"):
        return AudioLanguageModel(config, SpecialTokens(*range(len(fields(SpecialTokens)))))


def parts(model: AudioLanguageModel) -> dict[str, int]:
    """Parameters of each part; all of them once."""
    backbone = model.backbone
    head = 0 if model.config.tie_word_embeddings else model.lm_head.weight.numel()
    return {
        "backbone": _count(backbone.transformer),
        "text embeddings": backbone.embed_tokens.weight.numel(),
        "text head": head,
        "speech embeddings": _count(model.speech_embeddings),
        "patch encoder": _count(model.patch_encoder),
        "patch decoder": _count(model.patch_decoder),
    }


def weight_bytes(model: AudioLanguageModel, kind: "str | Quantization") -> int:
    """Bytes of all weights as one of FORMATS; what int8 and int4 leave as it is counts as bfloat16.

    Raises ModelError for a model whose widths a format does not allow.
    """
    packed = {} if kind in ("float32", "bfloat16") else formats(model, Quantization.named(kind) or Quantization(8))
    total = 0
    for name, weight in model.named_parameters():
        if name in packed:
            how, (rows, width) = packed[name], weight.shape
            total += rows * row_bytes(width, how.bits, how.group)
        else:
            total += weight.numel() * item_bytes(kind)
    return total


def item_bytes(kind: "str | Quantization") -> int:
    """Bytes per number of activations, keys and values beside weights of one of FORMATS."""
    return 4 if kind == "float32" else 2


def position_bytes(config: LanguageModelConfig, kind: "str | Quantization") -> int:
    """Bytes of the keys and values of a position, a text token or a patch."""
    shape = config.backbone
    return shape.layers * 2 * shape.kv_heads * shape.head_dim * item_bytes(kind)


def streams(
    model: AudioLanguageModel, kind: "str | Quantization", memory: float, positions: int, beside: int = 0
) -> int:
    """How many requests of so many positions fit into `memory` bytes with the weights; beside: bytes of other models.

    At most what fills the context counts as a request's positions. 0 if not one fits. Raises ModelError.
    """
    positions = min(positions, model.config.max_position_embeddings)
    each = -(-positions // PAGE) * PAGE * position_bytes(model.config, kind)
    return max(0, int((memory * USABLE - weight_bytes(model, kind) - beside) // each))


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
