"""The golden language models as fixtures (see tests/golden/README.md) and tiny random ones.

`golden` runs a test per checkpoint.
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.text import SpecialTokens

FOLDER = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden"))


class Golden:
    """A checkpoint and what the published code computed with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = FOLDER / "ckpt" / name

    @cached_property
    def model(self) -> AudioLanguageModel:
        return AudioLanguageModel.from_pretrained(self.folder)

    @cached_property
    def info(self) -> dict:
        return json.loads((FOLDER / f"{self.name}.lm.json").read_text())

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        arrays = load_file(FOLDER / f"{self.name}.lm.safetensors")
        return {name: x.int() if x.dtype == torch.int16 else x for name, x in arrays.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]


GOLDENS = [Golden(path.name) for path in sorted((FOLDER / "ckpt").glob("*_lm_*"))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden" in metafunc.fixturenames:
        metafunc.parametrize("golden", GOLDENS, ids=[golden.name for golden in GOLDENS])


SPECIAL = SpecialTokens(
    sosp=43, eosp=44, empty=45, human=46, speechlm=47, sostm=48, eostm=49, eot=50, im_start=41, im_end=42, endoftext=40
)


def tiny_config(**changes: object) -> LanguageModelConfig:
    """A language model of a few thousand parameters."""
    settings: dict = {
        "hidden_size": 24,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 60,
        "max_position_embeddings": 600,
        "audio_channels": 3,
        "speech_vocab_size": "11-7-9",
        "speech_zeroemb_idx": "10-3-0",
        "delay_pattern": "0-1-2",
        "local_dim": 16,
        "local_layers": 2,
        "local_attn_heads": 2,
        "local_ffn_dim": 24,
        "input_local_dim": 16,
        "input_local_layers": 2,
        "input_full_attention": True,
    }
    return LanguageModelConfig(**{**settings, **changes})


@pytest.fixture
def make_model() -> Callable[..., AudioLanguageModel]:
    """Makes a tiny random language model; keyword arguments change its configuration."""

    def make(**changes: object) -> AudioLanguageModel:
        torch.manual_seed(0)
        model = AudioLanguageModel(tiny_config(**changes), SPECIAL).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.uniform_(0.5, 1.5)
        return model

    return make


@pytest.fixture
def random_ids() -> Callable[..., Tensor]:
    """Makes ids [B, 1 + C, T * G] for a model: text and patches in random order, some codes empty, the rest wild."""

    def make(model: AudioLanguageModel, batch: int, length: int, patches: float = 0.5, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        vocabularies, size = (40, *model.config.speech_vocab_size), model.config.group_size
        ids = torch.stack([torch.randint(n, (batch, length * size), generator=generator) for n in vocabularies], 1)
        is_patch = torch.rand(batch, length, generator=generator) < patches
        text = torch.where(is_patch, model.special.empty, ids[:, 0, ::size])
        ids[:, 0] = -100
        ids[:, 0, ::size] = text
        ids[:, 1:] = torch.where(is_patch.repeat_interleave(size, 1)[:, None], ids[:, 1:], -7)
        return ids

    return make


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """Seeds, and one thread: more of them only wait for each other on models this small."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
