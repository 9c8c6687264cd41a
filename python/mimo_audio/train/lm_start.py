"""Starting weights of a language model, its parameters by module, and the learning rate's course."""

import math

import torch
from torch import Tensor, nn

from mimo_audio.lm import AudioLanguageModel
from mimo_audio.train import parallel, starting_point
from mimo_audio.train.lm_recipe import Stage

MODULES = ("patch_encoder", "backbone", "patch_decoder")  # of the report's table 3
EMBEDDING_STD = 0.02
NO_DECAY = ("norm.weight", "layernorm.weight", ".bias")


def module_of(name: str) -> str:
    """Which of MODULES a parameter of AudioLanguageModel trains with."""
    first = name.split(".")[0]
    return {"speech_embeddings": "patch_encoder", "lm_head": "backbone"}.get(first, first)


@torch.no_grad()
def initialise(model: AudioLanguageModel, seed: int) -> None:
    """Random weights: embeddings of 0.02, matrices of 1 / sqrt(3 inputs); what a block adds shrinks with the depth."""
    generator = torch.Generator().manual_seed(seed)
    stacks = [model.patch_encoder.transformer, model.backbone.transformer, model.patch_decoder.transformer]
    depths = {id(p): len(stack.layers) for stack in stacks for p in stack.parameters()}
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if name.endswith(NO_DECAY):
            parameter.fill_(0.0 if name.endswith(".bias") else 1.0)
            continue
        std = EMBEDDING_STD if id(parameter) in embeddings else (3 * parameter.shape[1]) ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std /= math.sqrt(2 * depths[id(parameter)])
        parameter.copy_(std * torch.randn(parameter.shape, generator=generator))


def make_optimizer(model: AudioLanguageModel, stage: Stage) -> torch.optim.AdamW:
    """AdamW, a group for each module's matrices and one for its norms and biases, which do not decay.

    What the stage does not train takes no gradients any more.
    """
    groups: list[dict] = []
    for module in MODULES:
        rate = getattr(stage.learning_rates, module)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad and module_of(n) == module]
        for _, parameter in named:
            parameter.requires_grad_(rate > 0)
        if rate > 0:
            decayed: list[Tensor] = [p for name, p in named if not name.endswith(NO_DECAY)]
            plain: list[Tensor] = [p for name, p in named if name.endswith(NO_DECAY)]
            for parameters, decay in ((decayed, stage.weight_decay), (plain, 0.0)):
                if not parameters:
                    continue
                groups += [
                    {"params": group, "lr": rate, "peak": rate, "weight_decay": decay, "name": module}
                    for group in parallel.alike(parameters)
                ]
    return torch.optim.AdamW(groups, betas=stage.betas, fused=True)


def schedule(step: int, stage: Stage) -> float:
    """Share of the peak learning rate: linear warm-up, then constant, or half a cosine down to 1%."""
    warmup = math.ceil(stage.warmup * stage.steps)
    if stage.schedule == "constant" and step >= warmup:
        return 1.0
    return starting_point.schedule(step, warmup, stage.steps)
