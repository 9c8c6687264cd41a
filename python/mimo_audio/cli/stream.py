"""`mimo-audio decode --stream` and `encode --stream`: sound and codes through pipes, as they arrive.

Codes are lines of text, one code frame (40 ms) each: its numbers, first codebook first, separated by spaces. Sound is
16-bit PCM, mono, little endian, at the model's rate.
"""

import contextlib
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from mimo_audio.cli.codec import Codec, load
from mimo_audio.errors import AudioError, CodesError
from mimo_audio.files.pcm import from_pcm, pcm, wav_header
from mimo_audio.files.tokens import read_tokens
from mimo_audio.tokenizer.streaming import StreamDecoder, StreamEncoder

READ_BYTES = 1 << 16


def decode(arguments: Namespace) -> int:
    """Codes on stdin -> sound on stdout; returns the exit status."""
    codec = load(arguments)

    def pieces() -> Iterator[bytes]:
        if arguments.stream == "wav":
            yield wav_header(codec.sample_rate)
        yield from map(pcm, _decoded(codec, sys.stdin.buffer, arguments.look_ahead))

    return write(pieces)


def encode(arguments: Namespace) -> int:
    """Sound on stdin -> codes on stdout; returns the exit status."""
    codec = load(arguments)
    settings = {} if arguments.look_ahead is None else {"look_ahead": arguments.look_ahead}

    def pieces() -> Iterator[bytes]:
        with StreamEncoder(codec.tokenizer, n_q=codec.n_q, **settings) as stream:
            for wave in _samples(sys.stdin.buffer, codec.sample_rate):
                yield _lines(stream.push(wave))
            yield _lines(stream.finish())

    return write(pieces)


def write(pieces: Callable[[], Iterator[bytes]]) -> int:
    """Writes every piece at once; a reader that has heard enough ends the work without complaint."""
    try:
        for piece in pieces():
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # what Python still tries to write when it ends goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _decoded(codec: Codec, source: BinaryIO, look_ahead: int | None) -> Iterator[Tensor]:
    """The sound of a .tokens file or of lines of codes."""
    if b"\0" in source.peek(8)[:8]:  # type: ignore[attr-defined]  # the length that such a file starts with
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stdin"
            path.write_bytes(source.read())
            tokens = read_tokens(path)
        codec.check(tokens)
        codes = torch.from_numpy(tokens.codes[: codec.n_q].astype(np.int64))
        frames, left = iter(codes.split(1, 1)), tokens.samples
    else:
        frames, left = _parsed(source, codec.n_q, len(codec.sizes)), sys.maxsize
    first = next(frames, None)
    if first is None:
        raise CodesError("stdin: expected a line of codes for every frame, or a .tokens file, got nothing")
    with StreamDecoder(codec.tokenizer, n_q=len(first), look_ahead=look_ahead) as stream:
        for number, frame in enumerate(chain([first], frames), 1):
            try:
                wave = cast(Tensor, stream.push(frame))[:left]
            except CodesError as error:
                raise CodesError(f"stdin, frame {number}: {error}") from error
            left -= len(wave)
            yield wave
        yield cast(Tensor, stream.finish())[:left]


def _parsed(source: BinaryIO, n_q: int | None, codebooks: int) -> Iterator[Tensor]:
    """Frames [n_q, 1] of lines of codes."""
    expected = None
    for number, line in enumerate(source, 1):
        try:
            codes = [int(word) for word in line.split()]
        except ValueError:
            text = line[:40].decode(errors="replace").strip()
            raise CodesError(f"stdin, line {number}: expected numbers separated by spaces, got {text!r}") from None
        expected = expected or len(codes)
        if len(codes) != expected or not (n_q or 1) <= len(codes) <= codebooks:
            wanted = f"{n_q or 1} to {codebooks} codes" if len(codes) == expected else f"{expected} codes as before"
            raise CodesError(f"stdin, line {number}: expected {wanted}, got {len(codes)}")
        yield torch.tensor(codes[:n_q])[:, None]


def _samples(source: BinaryIO, sample_rate: int) -> Iterator[Tensor]:
    """Waves [N] of 16-bit PCM as it comes in."""
    held = b""
    if source.peek(4)[:4] == b"RIFF":  # type: ignore[attr-defined]
        raise AudioError(f"stdin: expected bare 16-bit PCM (mono, {sample_rate} Hz), got a WAV file; encode it by name")
    while data := source.read1(READ_BYTES):  # type: ignore[attr-defined]
        held += data
        whole = len(held) // 2 * 2
        if whole:
            yield from_pcm(held[:whole])
        held = held[whole:]
    if held:
        raise AudioError("stdin: expected 16-bit PCM, got an odd number of bytes")


def _lines(codes: Tensor) -> bytes:
    return "".join(" ".join(map(str, frame)) + "\n" for frame in codes.T.tolist()).encode()
