"""The golden language models, and a small random one with other sizes."""

import json
import os
from functools import cached_property
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mimo_audio.lm import AudioLanguageModel

FOLDER = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden"))


class Golden:
    """A checkpoint and what the published code generated with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrays: dict[str, Tensor] = load_file(FOLDER / f"{name}.lm.safetensors")
        self.cases: dict[str, dict] = json.loads((FOLDER / f"{name}.lm.json").read_text())["generate"]

    @cached_property
    def model(self) -> AudioLanguageModel:
        return AudioLanguageModel.from_pretrained(FOLDER / "ckpt" / self.name)


GOLDENS = [Golden(path.name) for path in sorted((FOLDER / "ckpt").glob("*_lm_*"))]


@pytest.fixture(params=GOLDENS, ids=[golden.name for golden in GOLDENS])
def golden(request: pytest.FixtureRequest) -> Golden:
    return request.param


@pytest.fixture
def model() -> AudioLanguageModel:
    return GOLDENS[0].model


@pytest.fixture
def prompt(model: AudioLanguageModel) -> Tensor:
    """A mixed prompt [9, 216] of text and patches, 54 groups."""
    return GOLDENS[0].arrays["gen_free.prompt_ids"].long()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
