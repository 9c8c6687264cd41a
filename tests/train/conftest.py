"""A recipe small enough to train for a few steps within a second, on tones written to a temporary folder."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPE = {
    "model": {
        "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
        "encoder_skip_layer_id": 1, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32,
        "vocoder_dim": 32, "vocoder_intermediate_dim": 64, "vocoder_num_layers": 1, "vocoder_attention_heads": 2,
        "n_mels": 20, "num_quantizers": 2, "codebook_size": [16, 8], "vocoder_phase_advance": True,
    },
    "training": {
        "seed": 3, "steps": 6, "batch": 2, "crop": 6, "learning_rate": 0.003, "warmup": 2, "weight_decay": 0.01,
        "clip": 1.0, "unquantized": 2, "quantizer_dropout": 0.5, "bypass": 0.5, "average": 0.9, "precision": "float32",
        "log_every": 2, "checkpoint_every": 3,
        "weights": [
            {"first_step": 0, "mel": 0, "commitment": 0.25, "coarse": 1, "magnitude": 1, "phase": 1, "wave": 0},
            {"first_step": 1, "mel": 1, "commitment": 0.25, "coarse": 1, "magnitude": 1, "phase": 1, "wave": 1},
        ],
    },
}  # fmt: skip


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """A folder with three recordings of 0.5 s: harmonic tones of different pitch."""
    folder = tmp_path / "tones"
    folder.mkdir()
    time = np.arange(12000) / 24000
    for i, pitch in enumerate((110, 170, 230)):
        wave = sum(np.sin(2 * math.pi * pitch * h * time) / h for h in range(1, 12))
        soundfile.write(folder / f"{i}.wav", 0.2 * wave, 24000)
    return folder


@pytest.fixture
def recipe_file(tmp_path: Path, tones: Path) -> Path:
    """The recipe as a file."""
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**RECIPE, "data": {str(tones): 1.0}}))
    return path
