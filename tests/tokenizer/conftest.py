"""Golden data as fixtures (see tests/golden/README.md) and tiny random tokenizers.

`golden` runs a test per checkpoint, `clip` per clip of each, `detailed_clip` per clip with the output of every layer.
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.config import TokenizerConfig

FOLDER = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden"))
EXCUSED_MARGIN = 1e-4


class Golden:
    """A checkpoint and what the published code computed with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = FOLDER / "ckpt" / name

    @cached_property
    def tokenizer(self) -> AudioTokenizer:
        return AudioTokenizer.from_pretrained(self.folder)

    @cached_property
    def info(self) -> dict:
        return json.loads((FOLDER / f"{self.name}.info.json").read_text())

    @property
    def n_q(self) -> int:
        return self.info["n_q"]

    def path(self, part: str) -> Path:
        return FOLDER / f"{self.name}.{part}.safetensors"

    @lru_cache  # noqa: B019  (the few goldens live as long as the tests)
    def arrays(self, part: str) -> dict[str, Tensor]:
        arrays = load_file(self.path(part))
        return {name: x.float() if x.dtype == torch.bfloat16 else x for name, x in arrays.items()}

    @property
    def mel_constants(self) -> dict[str, Tensor]:
        """Filter bank, window and very short waves, which all checkpoints share: the set has them once."""
        return load_file(next(FOLDER.glob("*.mel.safetensors")))

    def clip(self, name: str) -> "Clip":
        return Clip(self, name)

    def clips(self) -> list["Clip"]:
        with safe_open(self.path("clips"), "pt") as file:
            return [Clip(self, name) for name in sorted({key.split(".")[0] for key in file.keys()})]  # noqa: SIM118

    def long_wave(self, case: str) -> Tensor:
        """The wave of a long pipeline case: one clip, repeated."""
        settings = self.info["long"][case]
        wave, count = self.clip(settings["tile_of"])["wav"], settings["n_samples"]
        return wave.repeat(-(-count // len(wave)))[:count]


class Clip:
    """The arrays of one clip, by name."""

    def __init__(self, golden: Golden, name: str) -> None:
        self.golden, self.name = golden, name

    def __getitem__(self, array: str) -> Tensor:
        return self.golden.arrays("clips")[f"{self.name}.{array}"]

    def __contains__(self, array: str) -> bool:
        return f"{self.name}.{array}" in self.golden.arrays("clips")


GOLDENS = [Golden(path.name) for path in sorted((FOLDER / "ckpt").glob("*_tok_*"))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "clip" in metafunc.fixturenames:
        clips = [clip for golden in GOLDENS for clip in golden.clips()]
        metafunc.parametrize("clip", clips, ids=[f"{clip.golden.name}-{clip.name}" for clip in clips])
    if "detailed_clip" in metafunc.fixturenames:
        clips = [clip for golden in GOLDENS for clip in golden.clips() if "inter.enc_layer0" in clip]
        metafunc.parametrize("detailed_clip", clips, ids=[f"{clip.golden.name}-{clip.name}" for clip in clips])
    if "golden" in metafunc.fixturenames:
        metafunc.parametrize("golden", GOLDENS, ids=[golden.name for golden in GOLDENS])


@pytest.fixture
def golden_resampling() -> dict[str, Tensor]:
    """Noise at several rates and the published resampler's version at 24 kHz: sr<rate>.in and sr<rate>.out24k."""
    return load_file(FOLDER / "resample.safetensors")


@pytest.fixture
def check_codes() -> Callable[[Tensor, Tensor, Tensor], None]:
    """Asserts that codes equal the golden ones wherever the golden margin is not rounding-sized."""

    def check(codes: Tensor, expected: Tensor, margin: Tensor) -> None:
        assert codes.shape == expected.shape
        wrong = codes != expected
        first = wrong & (wrong.cumsum(0) == 1)  # an excused flip changes the residual of the codebooks below it
        assert not (first & (margin > EXCUSED_MARGIN)).any(), f"{int(wrong.sum())} codes differ"

    return check


@pytest.fixture
def code_margin() -> Callable[[Tensor, Tensor, list[Tensor]], Tensor]:
    """Squared distance of the runner-up minus that of the given code, along the path of the given codes."""

    def margins(features: Tensor, codes: Tensor, codebooks: list[Tensor]) -> Tensor:
        residual, result = features.double(), []
        for index, codebook in zip(codes.long(), codebooks, strict=False):
            distance = torch.cdist(residual, codebook.double()).square()
            own = distance.gather(1, index[:, None])
            rest = distance.scatter(1, index[:, None], torch.inf).amin(1, keepdim=True)
            result.append((rest - own)[:, 0])
            residual = residual - codebook.double()[index]
        return torch.stack(result)

    return margins


def tiny_config(**changes: object) -> TokenizerConfig:
    """A tokenizer of a few thousand parameters."""
    settings: dict = {
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "encoder_skip_layer_id": 1,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 32,
        "vocoder_dim": 16,
        "vocoder_intermediate_dim": 16,
        "vocoder_num_layers": 2,
        "vocoder_attention_heads": 2,
        "num_quantizers": 4,
        "codebook_size": (16, 8),
        "n_mels": 20,
        "vocoder_attn_window_size": (6, 2),
    }
    return TokenizerConfig(**{**settings, **changes})


@pytest.fixture
def make_tokenizer() -> Callable[..., AudioTokenizer]:
    """Makes a tiny random tokenizer; keyword arguments change its configuration."""

    def make(**changes: object) -> AudioTokenizer:
        torch.manual_seed(0)
        return AudioTokenizer(tiny_config(**changes)).eval()

    return make


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """Seeds, and one thread: more of them only wait for each other on models this small."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
