"""Audio files and sample rates: any file that libsndfile reads, as mono float32 blocks; PCM, MP3, Vorbis and Opus out.

soundfile and soxr are imported where they are used: running a model on tensors needs neither.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mimo_audio.errors import AudioError
from mimo_audio.files.output import atomic_output

if TYPE_CHECKING:
    import soundfile

LOWEST_RATE, HIGHEST_RATE = 1000, 1_536_000  # Hz; a header that says something else is damaged
BLOCK_SECONDS = 30
BLOCK_VALUES = 1 << 22  # of all channels: however high the rate and many the channels, a block takes 16 MB
UNKNOWN_FRAMES = (1 << 63) - 1  # what libsndfile says of a stream whose end it cannot know
UNKNOWN_LENGTH = 0x7FFFF000  # bytes from which on a header only says that the file was written to a pipe
WRITTEN_AT_ONCE = 1 << 16  # samples; libsndfile's Vorbis encoder keeps on the stack what it is given at once
# libsndfile's format and encoding by suffix; for others, the format of that name and 16-bit PCM.
ENCODINGS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".oga": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".aif": ("AIFF", "PCM_16"),
}


def check_wave(wave: Tensor, empty: bool = False) -> Tensor:
    """The wave [N] of finite floating-point samples [N] or [1, N], N >= 1 (`empty`: >= 0). Else raises AudioError."""
    if not isinstance(wave, Tensor) or not wave.is_floating_point():
        kind = wave.dtype if isinstance(wave, Tensor) else type(wave).__name__
        raise AudioError(f"wave: expected a floating-point tensor [samples], got {kind}")
    if wave.dim() == 2 and len(wave) == 1:  # as torchaudio has it
        wave = wave[0]
    if wave.dim() != 1:
        raise AudioError(f"wave: expected one channel, [samples] or [1, samples], got shape {list(wave.shape)}")
    if len(wave) == 0 and not empty:
        raise AudioError("wave: expected at least one sample, got none")
    if not wave.isfinite().all():
        raise AudioError("wave: expected finite samples, got NaN or infinity")
    return wave


def check_length(samples: int, sample_rate: int, most_seconds: float) -> None:
    """Raises AudioError if there are more seconds of sound than a model's context holds."""
    if samples > most_seconds * sample_rate:
        raise AudioError(
            f"expected at most {most_seconds:.0f} s, which fill the model's context, got {samples / sample_rate:.0f} s"
        )


def resample_blocks(blocks: Iterable[Tensor], source_rate: int, target_rate: int) -> Iterator[Tensor]:
    """Blocks [N_i] at `source_rate` Hz as blocks at `target_rate` Hz, joined without a seam (soxr, high quality)."""
    if source_rate < 1:
        raise AudioError(f"sample_rate: expected a positive number of samples per second, got {source_rate}")
    if source_rate == target_rate:
        yield from blocks
        return
    import soxr

    resampler = soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32")
    for block in blocks:
        yield torch.from_numpy(resampler.resample_chunk(block.float().cpu().numpy()))
    yield torch.from_numpy(resampler.resample_chunk(np.zeros(0, np.float32), last=True))


def resample(wave: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """wave [N] at `source_rate` Hz -> [about N * target_rate / source_rate] at `target_rate` Hz, float32."""
    return torch.cat(list(resample_blocks([wave], source_rate, target_rate)))


def read_blocks(path: str | os.PathLike[str], sample_rate: int, most_seconds: float = float("inf")) -> Iterator[Tensor]:
    """The file as mono float32 blocks [N_i] at `sample_rate` Hz, in bounded memory; channels are averaged.

    Raises AudioError if the file cannot be read, is empty, holds NaN or infinity, or says that it is longer than
    the `most_seconds` that a model's context holds.
    """
    import soundfile

    try:
        with _open(path) as file:
            _check_complete(file, path)
            if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
                raise AudioError(
                    f"{path}: expected a sample rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {file.samplerate} Hz"
                )
            if file.frames < UNKNOWN_FRAMES:
                check_length(file.frames, file.samplerate, most_seconds)
            yield from resample_blocks(_mono_blocks(file, path), file.samplerate, sample_rate)
    except (OSError, soundfile.SoundFileError) as error:
        if not os.path.exists(path):
            raise AudioError(f"no such file: {path}") from error
        if not os.access(path, os.R_OK):  # libsndfile says "System error"
            raise AudioError(f"cannot read {path}: no permission") from error
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise AudioError(f"cannot read {path}: {reason}") from error


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator["soundfile.SoundFile"]:
    import soundfile

    class InOrder(soundfile.SoundFile):
        """soundfile seeks after every read; some cannot: GSM 6.10, G.721, a FLAC file that does not say its length."""

        def seekable(self) -> bool:
            return False

    name = os.fsencode(path)  # encoded here, so that it need not be UTF-8
    try:
        if os.path.isfile(name) or not os.path.exists(name) or os.path.isdir(name):
            with InOrder(name) as file:
                yield file
        else:  # a pipe or a device: libsndfile seeks in most formats
            with tempfile.TemporaryFile() as whole:
                with open(name, "rb") as pipe:
                    shutil.copyfileobj(pipe, whole)
                whole.seek(0)
                with InOrder(whole) as file:
                    yield file
    except TypeError as error:  # soundfile asks for what a header-less file does not say
        raise AudioError(f"cannot read {path}: a format without header, its sample rate is unknown") from error


def _check_complete(file: "soundfile.SoundFile", path: str | os.PathLike[str]) -> None:
    """Raises AudioError if the header promises more bytes of sound than the file has; libsndfile only notes that."""
    for promised, there in re.findall(
        r"(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", file.extra_info
    ):
        if int(there) < int(promised) < UNKNOWN_LENGTH:
            raise AudioError(f"{path}: truncated, {there} of {promised} bytes of sound are there")


def _mono_blocks(file: "soundfile.SoundFile", path: str | os.PathLike[str]) -> Iterator[Tensor]:
    empty = True
    size = max(1, min(BLOCK_SECONDS * file.samplerate, BLOCK_VALUES // file.channels))
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        empty = False
        if not np.isfinite(block).all():
            raise AudioError(f"{path}: expected finite samples, got NaN or infinity")
        yield torch.from_numpy(block.mean(1))
    if empty:
        raise AudioError(f"{path}: no samples")


def read(path: str | os.PathLike[str], sample_rate: int) -> Tensor:
    """The whole file, mono float32 [N] at `sample_rate` Hz. Raises AudioError as `read_blocks` does."""
    return torch.cat(list(read_blocks(path, sample_rate)))


def regroup(pieces: Iterable[Tensor], size: int, tail: int = 0) -> Iterator[Tensor]:
    """The rows of all pieces in groups of `size`, the last one shorter, or longer by fewer than `tail`."""
    held: list[Tensor] = []
    for piece in pieces:
        held.append(piece)
        while sum(map(len, held)) >= size + tail:
            rows = torch.cat(held)
            yield rows[:size]
            held = [rows[size:]]
    if sum(map(len, held)):
        yield torch.cat(held)


def check_writable_format(path: str | os.PathLike[str]) -> tuple[str, str]:
    """libsndfile's format and encoding for the path's suffix. Raises AudioError if it does not write such files."""
    import soundfile

    suffix = Path(path).suffix.lower()
    encoding = ENCODINGS.get(suffix, (suffix[1:].upper(), "PCM_16"))
    if not soundfile.check_format(*encoding):
        usual = ", ".join(name for name, known in ENCODINGS.items() if soundfile.check_format(*known))
        raise AudioError(f"cannot write {path}: expected a suffix of an audio format ({usual}), got {suffix!r}")
    return encoding


def write(path: str | os.PathLike[str], wave: Tensor | Iterable[Tensor], sample_rate: int, force: bool = False) -> None:
    """Writes wave [N] or [1, N], or blocks of it [N_i], in the format that the suffix names, whole or not at all.

    That is 16-bit PCM (.wav, .flac, .aiff, ...: samples beyond -1 .. 1 are clipped), MP3, Vorbis (.ogg) or Opus. Raises
    AudioError for another suffix or shape and for a sample rate that the format does not have, OutputError if the file
    exists (without `force`) or cannot be written.
    """
    import soundfile

    path = Path(path)
    kind, encoding = check_writable_format(path)
    if sample_rate < 1:
        raise AudioError(f"sample_rate: expected a positive number of samples per second, got {sample_rate}")
    blocks = [check_wave(wave)] if isinstance(wave, Tensor) else wave
    with atomic_output(path, force) as partial:
        try:
            with soundfile.SoundFile(os.fsencode(partial), "w", sample_rate, 1, encoding, format=kind) as file:
                for block in blocks:
                    for piece in block.detach().float().cpu().split(WRITTEN_AT_ONCE):
                        file.write(piece.numpy())
        except soundfile.SoundFileError as error:
            if shutil.disk_usage(partial.parent).free < 1 << 20:  # which libsndfile calls a system error
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise AudioError(f"cannot write {path}: {getattr(error, 'error_string', error)}") from error
