"""Golden prompts (see tests/golden/README.md), the text tokenizer they were made with, and a builder of prompts."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimo_audio.prompts import PromptBuilder
from mimo_audio.text import TextTokenizer

FOLDER = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden"))
EMPTY_IDS = (1024, 1024, 128, 128, 128, 128, 128, 128)


def read_golden(name: str) -> dict[str, Any]:
    """A JSON file of the golden set, which may be compressed."""
    path = FOLDER / f"{name}.json"
    text = path.read_text() if path.exists() else gzip.decompress(path.with_suffix(".json.gz").read_bytes())
    return json.loads(text)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, file in (("prompt_case", "prompts"), ("segment_case", "segments")):
        if fixture in metafunc.fixturenames:
            cases = read_golden(file)["cases"]
            names = [f"{index}-{case.get('method', case.get('kind'))}" for index, case in enumerate(cases)]
            metafunc.parametrize(fixture, cases, ids=names)


@pytest.fixture(scope="session")
def golden_prompts() -> dict[str, Any]:
    return read_golden("prompts")


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return FOLDER


@pytest.fixture(scope="session")
def tokenizer_folder() -> Path:
    return FOLDER / "ckpt" / "A_lm_s0"


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> TextTokenizer:
    return TextTokenizer.load(tokenizer_folder)


@pytest.fixture(scope="session")
def build(tokenizer: TextTokenizer) -> PromptBuilder:
    return PromptBuilder(tokenizer, 4, EMPTY_IDS, tuple(index + 1 for index in EMPTY_IDS))


@pytest.fixture
def codes() -> Callable[[int], Tensor]:
    """Makes random codes [8, frames]."""

    def make(frames: int) -> Tensor:
        seeded = torch.Generator().manual_seed(frames)
        return torch.stack([torch.randint(size, (frames,), generator=seeded) for size in EMPTY_IDS])

    return make


@pytest.fixture
def shown(tokenizer: TextTokenizer) -> Callable[[Tensor], str]:
    """Writes the text row of ids out, patches as #."""

    def show(ids: Tensor) -> str:
        return tokenizer.decode(ids[0, ::4].tolist()).replace("<|empty|>", "#")

    return show
