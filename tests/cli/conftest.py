"""A tiny tokenizer with random weights in the released layout, sounds, and the command line called in this process."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import mimo_audio
from mimo_audio import MimoAudio
from mimo_audio.cli import main
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.config import TokenizerConfig

CONFIG = TokenizerConfig(
    d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, encoder_skip_layer_id=1,
    decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=32,
    vocoder_dim=16, vocoder_intermediate_dim=32, vocoder_num_layers=2, vocoder_attention_heads=2,
    num_quantizers=3, codebook_size=(32, 16), n_mels=20,
    encoder_attn_window_size=(32, 32), decoder_attn_window_size=(64, 0),
)  # fmt: skip

GOLDEN = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden"))
LANGUAGE_MODEL = GOLDEN / "ckpt" / "A_lm_s0"


def save_tokenizer(folder: Path, seed: int, config: TokenizerConfig = CONFIG) -> Path:
    """Saves a tokenizer with random weights of this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AudioTokenizer(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny tokenizer: 3 codebooks of 32, 16, 16 entries."""
    return save_tokenizer(tmp_path_factory.mktemp("models") / "tiny", seed=0)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of the same shape with other codebooks."""
    return save_tokenizer(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """Two seconds of a shipped clip, float32 [48000] at 24 kHz."""
    with (files("mimo_audio") / "assets" / "sentence.wav").open("rb") as file:
        return soundfile.read(file, frames=48000, dtype="float32")[0]


@pytest.fixture
def wav(tmp_path: Path, speech: np.ndarray) -> Path:
    """The speech as in.wav."""
    soundfile.write(tmp_path / "in.wav", speech, 24000)
    return tmp_path / "in.wav"


@dataclass
class Run:
    """What a command gave."""

    status: int
    out: str
    err: str


@pytest.fixture
def mimo(capfd: pytest.CaptureFixture[str], model: Path) -> Callable[..., Run]:
    """Calls `mimo-audio`, with the tiny model unless the arguments name another."""

    def call(*arguments: object) -> Run:
        words = [str(word) for word in arguments]
        capfd.readouterr()
        try:
            status = main(words if "--model" in words else [*words, "--model", str(model)])
        except SystemExit as exit_:  # argparse
            status = exit_.code
        captured = capfd.readouterr()
        return Run(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tokenizer with codebooks for the language model."""
    config = replace(CONFIG, num_quantizers=8, codebook_size=(1024, 1024, 128))
    return save_tokenizer(tmp_path_factory.mktemp("models") / "for_language", seed=0, config=config)


@pytest.fixture(scope="session")
def whole_model(tokenizer: Path) -> MimoAudio:
    """What `ask` loads, by the API."""
    return mimo_audio.load(LANGUAGE_MODEL, tokenizer, device="cpu")


@pytest.fixture
def ask(mimo: Callable[..., Run], tokenizer: Path) -> Callable[..., Run]:
    """Calls a task of the small golden language model."""
    return lambda *arguments: mimo(*arguments, "--model", LANGUAGE_MODEL, "--tokenizer", tokenizer)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More of them only wait for each other on models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
