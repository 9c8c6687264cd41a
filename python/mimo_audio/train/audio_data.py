"""Training audio from folders or manifests: micro-batch p of step n is a pure function of the seed, n and p.

Neither the order in which micro-batches are asked for nor the number of threads that read them changes any of them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimo_audio.errors import AudioError
from mimo_audio.files import audio
from mimo_audio.files.recordings import Recording, list_recordings

GAIN_DB = (-16.0, 2.0)
UNREADABLE = (OSError, soundfile.SoundFileError, TypeError)  # the last for a format without header
DRAWS = 1000  # of recordings, before it is clear that none is short enough and has a text


@dataclass(frozen=True)
class Batch:
    """crops [B, samples]; utterances: whole recordings [N_i], each a whole number of codec frames, with their texts."""

    crops: Tensor
    utterances: tuple[Tensor, ...] = ()
    texts: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(self.crops.to(device), tuple(wave.to(device) for wave in self.utterances), self.texts)


@dataclass(frozen=True, kw_only=True)
class AudioData:
    """Parts of steps at one sample rate. `sources` maps a folder or manifest to its share of what is drawn.

    samples and frame (of the codec) are in samples; a micro-batch has `batch` crops, and as many whole
    recordings as `utterances` says, of at most `seconds` and with a text.
    """

    sources: Mapping[Path, float]
    sample_rate: int
    samples: int
    batch: int
    seed: int
    frame: int = 1
    utterances: int = 0
    seconds: float = 0
    _recordings: list[list[Recording]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sources or min(self.sources.values()) <= 0:
            raise AudioError(f"sources: expected one or more with a positive share, got {dict(self.sources)}")
        object.__setattr__(self, "_recordings", [list_recordings(Path(source)) for source in self.sources])
        if self.utterances and not any(r.text for source in self._recordings for r in source):
            raise AudioError(f'no "text" in any of {", ".join(map(str, self.sources))}: audio_to_text needs manifests')

    def __call__(self, step: int, micro_batch: int = 0) -> Batch:
        """A micro-batch of a step; every crop with a random gain, and shorter recordings between zeros."""
        rng = np.random.default_rng([self.seed, step, micro_batch])
        crops = torch.from_numpy(np.stack([self._crop(rng) for _ in range(self.batch)]))
        utterances = [self._whole(rng) for _ in range(self.utterances)]
        return Batch(crops, tuple(wave for wave, _ in utterances), tuple(text for _, text in utterances))

    @property
    def recordings(self) -> int:
        """How many there are."""
        return sum(map(len, self._recordings))

    def _draw(self, rng: np.random.Generator) -> Recording:
        shares = np.array(list(self.sources.values()), float)
        source = self._recordings[rng.choice(len(shares), p=shares / shares.sum())]
        return source[rng.integers(len(source))]

    def _crop(self, rng: np.random.Generator) -> NDArray[np.float32]:
        wave = self._read(self._draw(rng).path, self.samples, rng)
        out = np.zeros(self.samples, np.float32)
        offset = rng.integers(self.samples - len(wave) + 1)
        out[offset : offset + len(wave)] = wave * _gain(rng)
        return out

    def _whole(self, rng: np.random.Generator) -> tuple[Tensor, str]:
        """A whole recording, with zeros up to a whole number of frames, and its text."""
        for _ in range(DRAWS):
            recording = self._draw(rng)
            if recording.text and _duration(recording.path) <= self.seconds:
                wave = self._read(recording.path, round(self.seconds * self.sample_rate), rng) * _gain(rng)
                return torch.from_numpy(np.pad(wave, (0, -len(wave) % self.frame))), recording.text
        raise AudioError(f"found no recording of at most {self.seconds:g} s that has a text in {DRAWS} draws")

    def _read(self, path: Path, samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """At most so many samples from a random place. Raises AudioError, also for NaN and infinity."""
        try:
            with soundfile.SoundFile(os.fsencode(path)) as file:
                count = -(-samples * file.samplerate // self.sample_rate)
                file.seek(int(rng.integers(max(0, file.frames - count) + 1)))
                wave, rate = file.read(count, dtype="float32", always_2d=True).mean(1), file.samplerate
        except UNREADABLE as error:
            raise AudioError(f"cannot read {path}: {error}") from error
        if not len(wave):
            raise AudioError(f"{path}: no samples")
        if not np.isfinite(wave).all():
            raise AudioError(f"{path}: expected finite samples, got NaN or infinity")
        if rate != self.sample_rate:
            wave = audio.resample(torch.from_numpy(wave), rate, self.sample_rate).numpy()
        return wave[:samples]


def _gain(rng: np.random.Generator) -> float:
    return 10 ** (rng.uniform(*GAIN_DB) / 20)


def _duration(path: Path) -> float:
    try:
        return soundfile.info(os.fsencode(path)).duration
    except UNREADABLE as error:
        raise AudioError(f"cannot read {path}: {error}") from error
