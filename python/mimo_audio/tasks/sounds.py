"""What users may give as audio, and how it becomes blocks of a mono wave."""

from collections.abc import Iterator
from numbers import Integral
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mimo_audio.errors import AudioError
from mimo_audio.files import audio
from mimo_audio.tasks.results import Speech

# A file's path, a wave, (wave, sample rate), codes int [C, T], or speech that was made before. A wave holds floats or
# 16-bit PCM (int16) [N], or several channels, [channels, N] or [N, channels] with fewer channels than samples.
Sound: TypeAlias = str | PathLike[str] | Tensor | np.ndarray[Any, Any] | tuple[Any, int] | Speech

BLOCK_SAMPLES = 1 << 20


def codes_in(sound: object) -> Tensor | None:
    """The codes that the sound consists of, None if it is a wave or a file."""
    if isinstance(sound, Speech):
        return sound.codes
    if isinstance(sound, np.ndarray) and sound.dtype.kind in "iu" and sound.dtype != np.int16:
        sound = torch.from_numpy(sound.astype(np.int64))
    if isinstance(sound, Tensor) and sound.ndim == 2 and not sound.is_floating_point() and sound.dtype != torch.int16:
        return sound.cpu()
    return None


def blocks_of(sound: Sound, sample_rate: int, most_seconds: float) -> Iterator[Tensor]:
    """A file or a wave, so long at most, as mono float32 blocks [N_i] at `sample_rate` Hz. Raises AudioError."""
    if isinstance(sound, str | PathLike):
        return audio.read_blocks(sound, sample_rate, most_seconds)
    wave, rate = sound if isinstance(sound, tuple) and len(sound) == 2 else (sound, sample_rate)
    if not isinstance(rate, Integral) or isinstance(rate, bool):
        raise AudioError(f"expected (wave, sample_rate) with a whole number of Hz, got {rate!r:.50}")
    wave = _mono(wave).float()
    if rate > 0:
        audio.check_length(len(wave), int(rate), most_seconds)
    return audio.resample_blocks(wave.split(BLOCK_SAMPLES), int(rate), sample_rate)


def _mono(wave: object) -> Tensor:
    if isinstance(wave, np.ndarray) and wave.dtype.kind == "f":
        wave = torch.from_numpy(np.array(wave, np.float32))
    if isinstance(wave, np.ndarray) and wave.dtype == np.int16:
        wave = torch.from_numpy(wave.copy())
    if isinstance(wave, Tensor) and wave.dtype == torch.int16:
        wave = wave / torch.tensor(32768.0, dtype=torch.float32)
    if not isinstance(wave, Tensor) or not wave.is_floating_point() or wave.ndim not in (1, 2):
        shape = f" {wave.dtype} {list(wave.shape)}" if isinstance(wave, Tensor | np.ndarray) else ""
        raise AudioError(
            "expected a path, a wave of floats or int16 [samples] or [channels, samples], (wave, sample_rate) or codes "
            f"int [codebooks, frames], got {type(wave).__name__}{shape}"
        )
    if wave.ndim == 2 and wave.numel():
        wave = wave.mean(int(wave.shape[0] > wave.shape[1]))
    return audio.check_wave(wave.flatten()).cpu()
