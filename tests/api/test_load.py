"""Loading: which folders, which tokenizer, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

import mimo_audio
from mimo_audio.errors import AudioError, GenerationError, ModelError
from mimo_audio.lm import LanguageModelConfig
from mimo_audio.tasks import pairing
from mimo_audio.tokenizer import AudioTokenizer

from .conftest import LANGUAGE_MODEL, TOKENIZER


def test_the_tokenizer_is_found_beside_the_model(copied: Callable[..., Path]) -> None:
    folder = copied(LANGUAGE_MODEL, "lm")
    with pytest.raises(
        ModelError, match=r"no audio tokenizer at .*lm/tokenizer or .*MiMo-Audio-Tokenizer: .*--tokenizer"
    ):
        mimo_audio.load(folder)
    beside = copied(TOKENIZER, "MiMo-Audio-Tokenizer")
    assert pairing.find_tokenizer(folder, None).resolve() == beside
    inside = copied(TOKENIZER, "lm/tokenizer")
    assert pairing.find_tokenizer(folder, None).resolve() == inside
    assert pairing.find_tokenizer(folder, beside) == beside
    assert pairing.find_tokenizer(folder, "nano") == pairing.NANO_TOKENIZER
    assert len(mimo_audio.load(folder, device="cpu").speak("Hello", max_new=12).codes) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_size": [1024, 512]}, "codebooks of 1024-512-512.* entries, expected 1024-1024-128"),
        ({"num_quantizers": 4}, "codebooks of 1024-1024-128-128 entries, expected 1024-1024-128-128-128"),
        ({"avg_pooler": 1}, "50 frames per second, expected 25"),
        ({"hop_length": 480, "num_quantizers": 2}, "codebooks of 1024-1024 .*; 12.5 frames per second"),
    ],
)
def test_another_tokenizer_is_refused(copied: Callable[..., Path], changes: dict, message: str) -> None:
    tokenizer = copied(TOKENIZER, "tok", **changes)
    with pytest.raises(ModelError, match="not that of the language model: " + message):
        mimo_audio.load(LANGUAGE_MODEL, tokenizer)


def test_codes_without_place_for_an_empty_one_are_refused(copied: Callable[..., Path]) -> None:
    folder = copied(LANGUAGE_MODEL, "lm", speech_zeroemb_idx=0)
    with pytest.raises(ModelError, match=r"empty codes 0-0-0.*, expected one behind each codebook"):
        mimo_audio.load(folder, TOKENIZER)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no language model at .*nowhere"):
        mimo_audio.load(tmp_path / "nowhere", TOKENIZER)
    with pytest.raises(ModelError, match=r"no audio tokenizer at .*nowhere"):
        mimo_audio.load(LANGUAGE_MODEL, tmp_path / "nowhere")
    with pytest.raises(ModelError, match="expected the config of a language model, got that of an audio tokenizer"):
        mimo_audio.load(TOKENIZER, TOKENIZER)
    with pytest.raises(ModelError, match="config: missing"):
        mimo_audio.load(LANGUAGE_MODEL, LANGUAGE_MODEL)


def test_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="dtype"):
        mimo_audio.load(LANGUAGE_MODEL, TOKENIZER, device="cpu", dtype=torch.float64)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelError, match="device cuda: torch finds no GPU"):
        mimo_audio.load(LANGUAGE_MODEL, TOKENIZER, device="cuda")
    assert mimo_audio.load(LANGUAGE_MODEL, TOKENIZER).language_model.device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, wave: Tensor) -> None:
    model = mimo_audio.load(LANGUAGE_MODEL, TOKENIZER, device="cpu", dtype=dtype)
    assert model.language_model.lm_head.weight.dtype == dtype
    assert model.chat(wave, speech=True, max_seconds=0.3, max_new=40, seed=1).speech.wave.isfinite().all()


def test_the_end_of_the_context(
    copied: Callable[..., Path], wave: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context of 32 positions: 5.12 s of audio."""
    model = mimo_audio.load(copied(LANGUAGE_MODEL, "lm", max_position_embeddings=32), TOKENIZER, device="cpu")
    assert model.most_seconds == 5.12
    many, message = wave.repeat(5), "audio: expected at most 5 s, which fill the model's context, got "
    soundfile.write(tmp_path / "long.wav", many.numpy(), 24000)
    with monkeypatch.context() as patch:  # nothing is computed for these
        patch.setattr(AudioTokenizer, "encode_features", None)
        for long in (many, (many, 24000), tmp_path / "long.wav"):
            with pytest.raises(AudioError, match=message + "7 s"):
                model.encode(long)
    with pytest.raises(AudioError, match=message[7:] + "more"):
        model.encode_blocks([many])
    with pytest.raises(GenerationError, match="takes 53 positions, expected fewer than the model's context of 32"):
        model.transcribe(wave[:14400].repeat(4))
    speech = model.extend(wave, temperature=0)
    assert not speech.stats.ended
    assert speech.stats.prompt + speech.stats.text + speech.stats.patches == 32


def test_the_config_decides_the_sizes() -> None:
    """The released configuration's codebooks are those of the released tokenizer."""
    config = LanguageModelConfig.load(LANGUAGE_MODEL / "config.json")
    assert [size - 1 for size in config.speech_vocab_size] == [1024, 1024, *[128] * 6]
