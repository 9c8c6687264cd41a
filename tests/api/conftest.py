"""A whole model on the small golden checkpoints, what the published pipeline made with them, and changed copies."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mimo_audio
from mimo_audio import MimoAudio

FOLDER = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden"))
LANGUAGE_MODEL, TOKENIZER = FOLDER / "ckpt" / "A_lm_s0", FOLDER / "ckpt" / "A_tok_s0"


@pytest.fixture(scope="session")
def model() -> MimoAudio:
    return mimo_audio.load(LANGUAGE_MODEL, TOKENIZER, device="cpu")


@pytest.fixture(scope="session")
def golden() -> dict[str, Tensor]:
    """wav0, wav1, and of every case prompt_ids, all_ids and, of some, wav; all greedy."""
    arrays = load_file(FOLDER / "e2e.safetensors")
    return {name.removeprefix("fp32."): array for name, array in arrays.items()}


@pytest.fixture(scope="session")
def wave(golden: dict[str, Tensor]) -> Tensor:
    """Speech at 24 kHz, 1.3 s."""
    return golden["wav0"]


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """Copies a model's folder, with changes of its config.json."""

    def copy(source: Path, name: str, **changes: object) -> Path:
        target = tmp_path / name
        shutil.copytree(source, target)
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**config, **changes}))
        return target

    return copy


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More of them only wait for each other on models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
