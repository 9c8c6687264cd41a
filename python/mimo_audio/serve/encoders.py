"""Sound in the formats that clients ask for, as it is made: FFmpeg's encoders (PyAV), and bare PCM and WAV."""

from io import BytesIO
from typing import Any, Literal

import numpy as np
from torch import Tensor

from mimo_audio.files.pcm import pcm, wav_header

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
# Media type; of FFmpeg's, the container, the codec and its bits per second, and options of the container.
TYPES = {
    "mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
    "pcm": "audio/pcm",
}  # fmt: skip
CODECS: dict[str, tuple[str, str, int | None, dict[str, str]]] = {
    "mp3": ("mp3", "libmp3lame", 64_000, {}),
    "opus": ("ogg", "libopus", 48_000, {"page_duration": "100000"}),  # microseconds
    "aac": ("adts", "aac", 64_000, {}),
    "flac": ("flac", "flac", None, {}),
}


class Encoder:
    """Mono sound at `sample_rate` Hz -> bytes of a format; what `push` gave and `finish` gives is a whole file."""

    def __init__(self, kind: Format, sample_rate: int, file: BytesIO | None = None) -> None:
        self._kind, self._rate = kind, sample_rate
        self._sink = _Sink()
        self._count = 0
        if kind == "wav":
            self._sink.write(wav_header(sample_rate))
        elif kind in CODECS:
            import av

            container, codec, bits, options = CODECS[kind]
            self._file: Any = av.open(
                file or self._sink, "w", format=container, options={"flush_packets": "1", **options}
            )
            stream: Any = self._file.add_stream(codec, rate=sample_rate, layout="mono")
            self._stream = stream
            if bits is not None:
                stream.bit_rate = bits

    def push(self, wave: Tensor) -> bytes:
        """The wave [N] goes on; -> what can be sent of it, perhaps nothing yet."""
        data = pcm(wave)
        if self._kind not in CODECS:
            self._sink.write(data)
        elif data:
            import av

            frame = av.AudioFrame.from_ndarray(np.frombuffer(data, "<i2")[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._count
            self._count += frame.samples
            self._file.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        """The rest."""
        if self._kind in CODECS:
            self._file.mux(self._stream.encode(None))
            self._file.close()
        return self._sink.take()


def whole(kind: Format, wave: Tensor, sample_rate: int) -> bytes:
    """A file of all of a wave [N]."""
    if kind == "wav":
        data = pcm(wave)
        return wav_header(sample_rate, len(data)) + data
    file = BytesIO()  # in which FFmpeg can go back and write the length
    encoder = Encoder(kind, sample_rate, file)
    return encoder.push(wave) + encoder.finish() + file.getvalue()


class _Sink:
    """What FFmpeg writes to: it cannot seek, so that nothing that was sent changes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data
