"""Sound on the wire of a realtime session: 16-bit PCM at 24 kHz, or telephone sound (G.711) at 8 kHz."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

RATE = 24000  # Hz, of all sound inside a session
Format = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
RATES: dict[Format, int] = {"audio/pcm": RATE, "audio/pcmu": 8000, "audio/pcma": 8000}
Wave = NDArray[np.float32]


def _mu_law() -> NDArray[np.int16]:
    """The sample of each byte (ITU-T G.711, table 2, scaled to 16 bits)."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    value = ((2 * mantissa + 33) << exponent) - 33
    return np.where(code & 128, -4 * value, 4 * value).astype(np.int16)


def _a_law() -> NDArray[np.int16]:
    """The sample of each byte (ITU-T G.711, table 1, scaled to 16 bits)."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    value = np.where(exponent == 0, 2 * mantissa + 1, (2 * mantissa + 33) << np.maximum(exponent - 1, 0))
    return np.where(code & 128, 8 * value, -8 * value).astype(np.int16)


TABLES: dict[Format, NDArray[np.int16]] = {"audio/pcmu": _mu_law(), "audio/pcma": _a_law()}


def _nearest(table: NDArray[np.int16]) -> NDArray[np.uint8]:
    """The byte whose sample is nearest to each 16-bit sample, -32768 first."""
    order = np.argsort(table, kind="stable")
    values = table[order].astype(np.int32)
    borders = (values[1:] + values[:-1] + 1) // 2
    return order[np.searchsorted(borders, np.arange(-32768, 32768), "right")].astype(np.uint8)


BYTES: dict[Format, NDArray[np.uint8]] = {name: _nearest(table) for name, table in TABLES.items()}


def to_pcm16(wave: Wave) -> NDArray[np.int16]:
    """Samples from -1 to 1 (what is beyond is clipped) as 16-bit integers."""
    return np.clip(np.rint(wave * 32768.0), -32768, 32767).astype("<i2")


class Decoder:
    """Bytes of one format -> waves [N] float32 at 24 kHz, joined without a seam."""

    def __init__(self, kind: Format) -> None:
        self.kind = kind
        self._resampler = _resampler(RATES[kind], RATE)
        self._odd = b""

    def push(self, data: bytes) -> Wave:
        """The sound of the next bytes; half a sample waits for its other half."""
        if self.kind == "audio/pcm":
            data = self._odd + data
            self._odd = data[len(data) & ~1 :]
            samples = np.frombuffer(data[: len(data) & ~1], "<i2")
        else:
            samples = TABLES[self.kind][np.frombuffer(data, np.uint8)]
        wave = samples.astype(np.float32) / np.float32(32768)
        return wave if self._resampler is None else self._resampler.resample_chunk(wave)


class Encoder:
    """Waves [N] float32 at 24 kHz -> bytes of one format, joined without a seam."""

    def __init__(self, kind: Format) -> None:
        self.kind = kind
        self._resampler = _resampler(RATE, RATES[kind])

    def push(self, wave: Wave, last: bool = False) -> bytes:
        """The bytes that are ready; with `last` all that were held back."""
        if self._resampler is not None:
            wave = self._resampler.resample_chunk(wave, last=last)
        samples = to_pcm16(wave)
        if self.kind == "audio/pcm":
            return samples.tobytes()
        return BYTES[self.kind][samples.astype(np.int32) + 32768].tobytes()


def decode(kind: Format, data: bytes) -> Wave:
    """A whole recording."""
    decoder = Decoder(kind)
    wave = decoder.push(data)
    if decoder._resampler is None:
        return wave
    return np.concatenate([wave, decoder._resampler.resample_chunk(np.zeros(0, np.float32), last=True)])


def _resampler(source: int, target: int):
    if source == target:
        return None
    import soxr

    return soxr.ResampleStream(source, target, 1, dtype="float32")
