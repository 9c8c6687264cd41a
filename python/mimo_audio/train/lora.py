"""Low-rank adapters on a language model's matrices, by peft, and their merge into the weights."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_audio.files.schema import Size
from mimo_audio.lm import AudioLanguageModel

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTER = "default"  # peft's name of the first


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Adapters of `rank` on all matrices of all blocks, scaled by alpha / rank; nothing else is trained."""

    rank: Size = 16
    alpha: Size = 32


def add_lora(model: AudioLanguageModel, lora: Lora, seed: int) -> None:
    """Puts adapters on the model in place; they begin with no effect. Needs peft."""
    from peft import LoraConfig, inject_adapter_in_model  # an extra, and slow to import

    torch.manual_seed(seed)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(MATRICES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's remarks on models that are not of transformers
        inject_adapter_in_model(config, model)


@torch.no_grad()
def merged(tensors: dict[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """The state of the model without adapters, from that of the model with them."""
    found = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        owner, base, leaf = name.partition(".base_layer.")
        if base and leaf == "weight":
            down, up = (tensors[f"{owner}.lora_{part}.{ADAPTER}.weight"] for part in "AB")
            tensor = (tensor.float() + lora.alpha / lora.rank * (up.float() @ down.float())).to(tensor.dtype)
        found[f"{owner}.{leaf}" if base else name] = tensor
    return found
