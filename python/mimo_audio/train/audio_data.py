"""Random crops of recordings from folders or manifests: step n of a run is a pure function of the seed and n."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimo_audio import audio
from mimo_audio.errors import AudioError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
GAIN_DB = (-16.0, 2.0)


def list_audio(source: Path) -> list[Path]:
    """Audio files of a manifest (JSONL, key "audio", relative to its folder) or of a folder tree, in a fixed order.

    Raises AudioError if there are none.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    else:
        files = _read_manifest(source)
    if not files:
        raise AudioError(f"{source}: no audio files")
    return files


def _read_manifest(manifest: Path) -> list[Path]:
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"cannot read {manifest}: {error}") from error
    files = []
    for number, line in enumerate(lines, 1):
        try:
            files.append(manifest.parent / json.loads(line)["audio"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise AudioError(f'{manifest}:{number}: expected a JSON object with "audio", got {line[:80]!r}') from error
    return files


@dataclass(frozen=True)
class RandomCrops:
    """Batches of crops at one sample rate. `sources` maps a folder or manifest to its share of the crops."""

    sources: Mapping[Path, float]
    sample_rate: int
    samples: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        shares = np.array(list(self.sources.values()), float)
        if len(shares) == 0 or (shares <= 0).any():
            raise AudioError(f"sources: expected one or more with a positive share, got {dict(self.sources)}")
        object.__setattr__(self, "_files", [list_audio(Path(source)) for source in self.sources])
        object.__setattr__(self, "_shares", shares / shares.sum())

    def __call__(self, step: int) -> Tensor:
        """The batch of this step: [batch, samples] float32, random gain; shorter recordings lie between zeros."""
        rng = np.random.default_rng([self.seed, step])
        return torch.from_numpy(np.stack([self._crop(rng) for _ in range(self.batch)]))

    def _crop(self, rng: np.random.Generator) -> NDArray[np.float32]:
        files: list[Path] = self._files[rng.choice(len(self._shares), p=self._shares)]  # type: ignore[attr-defined]
        wave = self._read(files[rng.integers(len(files))], rng)
        out = np.zeros(self.samples, np.float32)
        offset = rng.integers(self.samples - len(wave) + 1)
        out[offset : offset + len(wave)] = wave * 10 ** (rng.uniform(*GAIN_DB) / 20)
        return out

    def _read(self, path: Path, rng: np.random.Generator) -> NDArray[np.float32]:
        """At most `samples` samples from a random place."""
        try:
            with soundfile.SoundFile(path) as file:
                count = -(-self.samples * file.samplerate // self.sample_rate)
                file.seek(int(rng.integers(max(0, file.frames - count) + 1)))
                wave, rate = file.read(count, dtype="float32", always_2d=True).mean(1), file.samplerate
        except (OSError, soundfile.SoundFileError) as error:
            raise AudioError(f"cannot read {path}: {error}") from error
        if rate != self.sample_rate:
            wave = audio.resample(torch.from_numpy(wave), rate, self.sample_rate).numpy()
        return wave[: self.samples]
