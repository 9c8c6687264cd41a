"""A recipe small enough to train for a few steps within a second, on tones written to a temporary folder."""

import json
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio.train.processes import Processes
from mimo_audio.train.recipe import Recipe
from mimo_audio.train.tokenizer import Trainer, make_trainer

TRAINING = {
    "seed": 3, "steps": 6, "batch": 2, "micro_batches": 1, "crop": 6, "learning_rate": 0.003, "warmup": 2,
    "weight_decay": 0.01, "clip": 1.0, "quantizer_dropout": 0.5, "average": 0.9, "precision": "float32", "workers": 2,
    "log_every": 2, "checkpoint_every": 3,
}  # fmt: skip
RECIPE = {
    "model": {
        "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
        "encoder_skip_layer_id": 1, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32,
        "vocoder_dim": 32, "vocoder_intermediate_dim": 64, "vocoder_num_layers": 1, "vocoder_attention_heads": 2,
        "n_mels": 20, "num_quantizers": 2, "codebook_size": [16, 8], "vocoder_phase_advance": True,
    },
    "stage1": {
        **TRAINING, "unquantized": 2, "bypass": 0.5,
        "weights": [
            {"first_step": 0, "commitment": 0.25, "coarse": 1, "magnitude": 1, "phase": 1},
            {"first_step": 1, "mel": 1, "commitment": 0.25, "coarse": 1, "magnitude": 1, "phase": 1, "wave": 1},
        ],
    },
    "stage2": {
        **TRAINING, "learning_rate": 0.0005, "discriminator_learning_rate": 0.002,
        "discriminators": {
            "periods": [2, 3], "period_channels": [2, 4, 4], "windows": [128, 64], "window_channels": 2,
        },
        "weights": [{"first_step": 0, "mel": 1, "adversarial": 1, "feature_matching": 2}],
    },
}  # fmt: skip
READER = {"width": 16, "layers": 1, "heads": 2, "ffn_dim": 32, "batch": 2, "seconds": 0.6}
TEXTS = ("one", "two two", "three")


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """A folder with three recordings of 0.5 s, harmonic tones of different pitch, and a manifest with texts."""
    folder = tmp_path / "tones"
    folder.mkdir()
    time = np.arange(12000) / 24000
    for i, pitch in enumerate((110, 170, 230)):
        wave = sum(np.sin(2 * math.pi * pitch * h * time) / h for h in range(1, 12))
        soundfile.write(folder / f"{i}.wav", 0.2 * wave, 24000)
    lines = [json.dumps({"audio": f"{i}.wav", "text": text}) for i, text in enumerate(TEXTS)]
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def values(tones: Path) -> dict[str, Any]:
    """The recipe as parsed JSON, with data."""
    return deepcopy({**RECIPE, "data": {str(tones): 1.0}})


@pytest.fixture
def with_text(values: dict[str, Any], tones: Path) -> dict[str, Any]:
    """The same with the audio-to-text objective."""
    values["data"] = {str(tones / "manifest.jsonl"): 1.0}
    values["stage1"]["audio_to_text"] = READER
    for weights in values["stage1"]["weights"]:
        weights["audio_to_text"] = 10
    return values


@pytest.fixture
def recipe_file(tmp_path: Path, values: dict[str, Any]) -> Path:
    """The recipe as a file."""
    return write(tmp_path, values)


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "recipe.json"
    path.write_text(json.dumps(values))
    return path


def load(folder: Path, values: dict[str, Any], **changes: Any) -> Recipe:
    """The recipe, with changes to both of its stages."""
    recipe = Recipe.load(write(folder, values))
    assert recipe.stage1
    assert recipe.stage2
    return replace(recipe, stage1=replace(recipe.stage1, **changes), stage2=replace(recipe.stage2, **changes))


def alone() -> Processes:
    return Processes(0, 1, torch.device("cpu"))


def trainer_of(recipe: Recipe, stage: int = 1) -> Trainer:
    """A trainer; of stage 2, with codebooks as drawn at random and its discriminators."""
    training = recipe.stage1 if stage == 1 else recipe.stage2
    assert training
    if stage == 2:
        torch.manual_seed(0)  # of the model, which stage 2 otherwise reads
    return make_trainer(recipe, training, alone(), None)


def step(trainer: Trainer, number: int) -> dict[str, float]:
    """One step of a trainer on its own data."""
    return trainer.step(number, [trainer.data(number, micro_batch) for micro_batch in trainer.micro_batches])
