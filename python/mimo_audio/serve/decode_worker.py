"""A process that decodes what clients upload: it may take so much memory and time, open no file and reach no network.

Run as a script, without our package, so that it starts in a moment. On stdin: a line of JSON (bytes, rate, seconds,
memory) and the upload; on stdout: a line of JSON (samples, or error) and mono float32 samples at that rate.
"""

import io
import json
import resource
import sys

import numpy as np
import soundfile
import soxr

LOWEST_RATE, HIGHEST_RATE = 1000, 192_000
# What libsndfile does not read and browsers or telephones record, by how files begin: the name of FFmpeg's demuxer. It
# is never let to guess: playlists and the like would name files and addresses.
CONTAINERS = ((4, b"ftyp", "mov"), (0, b"\x1aE\xdf\xa3", "matroska"), (0, b"\xff\xf1", "aac"), (0, b"\xff\xf9", "aac"))


class Refused(Exception):
    """An upload that is not decoded, and why."""


class InOrder(soundfile.SoundFile):
    """soundfile seeks after every read, which some formats cannot."""

    def seekable(self):
        return False


def pieces_of(data):
    """-> the rate, blocks [N, channels] of float32."""
    for at, magic, demuxer in CONTAINERS:
        if data[at : at + len(magic)] == magic:
            return by_ffmpeg(data, demuxer)
    try:
        file = InOrder(io.BytesIO(data))
    except (soundfile.SoundFileError, TypeError):
        raise Refused("expected a recording (wav, mp3, flac, ogg, opus, m4a, webm, aac), got something else") from None

    def blocks():
        while len(block := file.read(1 << 16, dtype="float32", always_2d=True)):
            yield block

    return file.samplerate, blocks()


def by_ffmpeg(data, demuxer):
    import av

    file = av.open(io.BytesIO(data), "r", format=demuxer)
    if not file.streams.audio:
        raise Refused("there is no sound in it")
    stream = file.streams.audio[0]
    resampler = av.AudioResampler(format="fltp", layout="mono")

    def blocks():
        for frame in file.decode(stream):
            for mono in resampler.resample(frame):
                yield mono.to_ndarray().T

    return stream.rate, blocks()


def decode(data, rate, seconds):
    """-> mono float32 [N] at `rate` Hz."""
    source, blocks = pieces_of(data)
    if not LOWEST_RATE <= source <= HIGHEST_RATE:
        raise Refused(f"expected a sample rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {source}")
    resampler = soxr.ResampleStream(source, rate, 1, dtype="float32")
    count, made = 0, []
    for block in blocks:
        count += len(block)
        if count > seconds * source:
            raise Refused(f"expected at most {seconds:g} s of sound, got more")
        made.append(resampler.resample_chunk(np.ascontiguousarray(block.mean(1), np.float32)))
    made.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    wave = np.concatenate(made)
    if not count:
        raise Refused("expected sound, got no samples")
    if not np.isfinite(wave).all():
        raise Refused("expected finite samples, got NaN or infinity")
    return wave


def main():
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        resource.setrlimit(resource.RLIMIT_AS, (asked["memory"], resource.RLIM_INFINITY))
        data = sys.stdin.buffer.read(asked["bytes"])
        try:
            wave = decode(data, asked["rate"], asked["seconds"])
            said: dict[str, object] = {"samples": len(wave)}
        except Refused as error:
            said, wave = {"error": str(error)}, np.zeros(0, np.float32)
        except MemoryError:
            said, wave = {"error": "takes too much memory to decode"}, np.zeros(0, np.float32)
        except Exception:  # of a decoder that does not understand: not for a client to read
            said, wave = {"error": "is damaged, or no recording"}, np.zeros(0, np.float32)
        sys.stdout.buffer.write(json.dumps(said).encode() + b"\n" + wave.astype("<f4").tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
