"""Sound as bytes: 16-bit PCM, mono, little endian, and the header that makes a WAV file of it."""

import struct

import numpy as np
import torch
from torch import Tensor

SCALE = 32768
UNKNOWN = 0xFFFFFFFF  # as the length of a WAV file: it is read until it ends


def pcm(wave: Tensor) -> bytes:
    """16-bit, little endian."""
    return (wave * SCALE).round().clamp(-SCALE, SCALE - 1).cpu().numpy().astype("<i2").tobytes()


def from_pcm(data: bytes) -> Tensor:
    """The wave [N] float32 of 16-bit PCM; an odd last byte is dropped."""
    return torch.from_numpy(np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / SCALE)


def wav_header(sample_rate: int, size: int = UNKNOWN) -> bytes:
    """Of mono 16-bit PCM of so many bytes, or whose length is not known yet."""
    layout = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    whole = UNKNOWN if size == UNKNOWN else 36 + size
    return b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", size)
