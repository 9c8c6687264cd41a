"""Memory does not grow with a recording's length: only a few blocks of sound are alive at any time."""

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torch import Tensor

from mimo_audio.files import audio
from mimo_audio.files.tokens import read_tokens
from mimo_audio.tokenizer import AudioTokenizer


class Census:
    """Follows tensors and remembers how many of them were alive at once."""

    def __init__(self) -> None:
        self.born: list[weakref.ref[Tensor]] = []
        self.most_alive = 0

    def follow(self, tensor: Tensor) -> Tensor:
        self.born.append(weakref.ref(tensor))
        self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self.born))
        return tensor


@pytest.fixture
def minute(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.1, (60 * 8000, 2))
    soundfile.write(tmp_path / "minute.flac", noise, 8000)
    return tmp_path / "minute.flac"


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 1 s and segments of 4 s: a minute is long."""
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 1)
    monkeypatch.setattr("mimo_audio.tokenizer.model.SEGMENT_MEL_FRAMES", 400)
    monkeypatch.setattr("mimo_audio.cli.codec.SEGMENT_CODE_FRAMES", 100)


@pytest.mark.usefixtures("small_segments")
def test_few_blocks_are_alive(mimo: Callable, minute: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, written = Census(), Census()
    read_blocks, decode = audio.read_blocks, AudioTokenizer.decode

    def counted_blocks(path: Path, sample_rate: int, most_seconds: float) -> Iterator[Tensor]:
        return map(read.follow, read_blocks(path, sample_rate, most_seconds))

    monkeypatch.setattr(audio, "read_blocks", counted_blocks)
    monkeypatch.setattr(AudioTokenizer, "decode", lambda self, codes: written.follow(decode(self, codes)))
    assert mimo("encode", minute, tmp_path / "a.tokens").status == 0
    assert len(read.born) >= 60
    assert read.most_alive <= 6
    assert mimo("decode", tmp_path / "a.tokens", tmp_path / "a.wav").status == 0
    assert len(written.born) == 16  # 1501 frames, the last of them beyond the end
    assert written.most_alive <= 2


@pytest.mark.usefixtures("small_segments")
def test_segments_join_exactly(mimo: Callable, minute: Path, model: Path, tmp_path: Path) -> None:
    """The file is the tokenizer's own segmentation of the whole wave, and as long as the recording."""
    assert mimo("encode", minute, tmp_path / "a.tokens").status == 0
    tokens = read_tokens(tmp_path / "a.tokens")
    whole = AudioTokenizer.from_pretrained(model).encode(audio.read(minute, 24000))
    assert np.array_equal(tokens.codes, whole.numpy())
    assert mimo("decode", tmp_path / "a.tokens", tmp_path / "a.wav").status == 0
    assert soundfile.info(tmp_path / "a.wav").frames == tokens.samples == 60 * 24000
