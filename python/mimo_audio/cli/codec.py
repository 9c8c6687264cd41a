"""One recording through the tokenizer, in bounded memory: what encode, decode, roundtrip and demo share."""

import logging
import os
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimo_audio.device import choose_device, choose_dtype
from mimo_audio.errors import CodesError
from mimo_audio.files import audio
from mimo_audio.files.tokens import Tokens, fingerprint
from mimo_audio.progress import progress_bar
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.model import SEGMENT_CODE_FRAMES

LOG = logging.getLogger(__name__)


class Stopwatch:
    """Seconds spent inside `timed` iterators, less those spent inside the `untimed` ones that they pull from."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0

    def timed(self, items: Iterable[Tensor]) -> Iterator[Tensor]:
        return self._account(items, 1)

    def untimed(self, items: Iterable[Tensor]) -> Iterator[Tensor]:
        return self._account(items, -1)

    def _account(self, items: Iterable[Tensor], sign: int) -> Iterator[Tensor]:
        iterator = iter(items)
        while True:
            start = self._now()
            item = next(iterator, None)
            self.seconds += sign * (self._now() - start)
            if item is None:
                return
            yield item

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@dataclass
class Codec:
    """A tokenizer, how many of its codebooks are used, and the time that the last recording took."""

    tokenizer: AudioTokenizer
    model: str
    n_q: int | None = None
    watch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        config = self.tokenizer.config
        self.watch = Stopwatch(self.tokenizer.device)
        self.sizes = config.codebook_size
        if (self.n_q or 0) > len(self.sizes):
            raise CodesError(f"--n-q: the tokenizer has {len(self.sizes)} codebooks, got {self.n_q}")
        self.dtype = str(self.tokenizer.encoder.conv1.weight.dtype).removeprefix("torch.")
        self.sample_rate = self.tokenizer.sample_rate
        self.frame_rate = config.frame_rate
        self.fingerprint = fingerprint(self.tokenizer.quantizer.embeddings())

    def warm_up(self) -> None:
        """One second of silence through the model, so that what is timed after it excludes one-time costs."""
        self.tokenizer.decode(self.tokenizer.encode(torch.zeros(self.sample_rate, dtype=torch.float32)))

    def encode(self, path: Path) -> Tokens:
        """The codes of an audio file; sets the watch to zero before. Raises AudioError."""
        self.watch.seconds = 0.0
        samples = 0

        def counted(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
            nonlocal samples
            for block in blocks:
                samples += len(block)
                yield block

        blocks = counted(progress("encode", read_blocks(path, self.sample_rate), self.sample_rate))
        pieces = list(self.watch.timed(self.tokenizer.encode_blocks(self.watch.untimed(blocks), self.n_q)))
        LOG.debug("%s: %d samples encoded in %.3f s", path, samples, self.watch.seconds)
        return Tokens(
            codes=torch.cat(pieces, 1).cpu().numpy().astype(np.uint16),
            samples=samples,
            sample_rate=self.sample_rate,
            frame_rate=self.frame_rate,
            codebook_sizes=self.sizes,
            fingerprint=self.fingerprint,
            model=self.model,
        )

    def decode(self, tokens: Tokens) -> Iterator[Tensor]:
        """Blocks of the wave that the codes stand for, as many samples as were encoded. Raises CodesError at once."""
        self.check(tokens)
        return self._decoded(tokens)

    def check(self, tokens: Tokens) -> None:
        """Raises CodesError unless this tokenizer made the tokens, and as many of each frame as are wanted."""
        if tokens.codebook_sizes != self.sizes:
            ours, theirs = len(self.sizes), len(tokens.codebook_sizes)
            difference = f"{theirs} codebooks, expected {ours}" if ours != theirs else "codebooks of other sizes"
            raise CodesError(f"tokens of another tokenizer ({tokens.model}): {difference}")
        if tokens.fingerprint != self.fingerprint:
            raise CodesError(
                f"tokens of another tokenizer ({tokens.model}): expected codebooks with fingerprint {self.fingerprint} "
                f"({self.model}), got {tokens.fingerprint}"
            )
        if (tokens.sample_rate, tokens.frame_rate) != (self.sample_rate, self.frame_rate):
            raise CodesError(
                f"tokens of another tokenizer ({tokens.model}): {tokens.frame_rate:g} frames per second at "
                f"{tokens.sample_rate} Hz, expected {self.frame_rate:g} at {self.sample_rate} Hz"
            )
        if self.n_q is not None and self.n_q > len(tokens.codes):
            raise CodesError(f"--n-q {self.n_q}: the file holds codes of {len(tokens.codes)} codebooks")

    def _decoded(self, tokens: Tokens) -> Iterator[Tensor]:
        codes = torch.from_numpy(tokens.codes[: self.n_q].astype(np.int64))
        waves = self.watch.timed(self.tokenizer.decode(piece) for piece in codes.split(SEGMENT_CODE_FRAMES, 1))
        left = tokens.samples
        for wave in progress("decode", waves, self.sample_rate, tokens.samples):
            yield wave[:left]
            left -= len(wave[:left])


def load(arguments: Namespace) -> Codec:
    """The codec that --model, --device, --dtype and --n-q describe. Raises MimoError."""
    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype and getattr(torch, arguments.dtype), device)
    LOG.debug("%s: on %s in %s, %d threads", arguments.model, device, dtype, torch.get_num_threads())
    tokenizer = AudioTokenizer.from_pretrained(arguments.model, device, dtype)
    return Codec(tokenizer, Path(arguments.model).resolve().name, getattr(arguments, "n_q", None))


def read_blocks(path: Path, sample_rate: int, most_seconds: float = float("inf")) -> Iterator[Tensor]:
    """`audio.read_blocks` without what decoders print themselves: libmpg123 comments on damaged files."""
    blocks = audio.read_blocks(path, sample_rate, most_seconds)
    while True:
        with _no_stderr():
            block = next(blocks, None)
        if block is None:
            return
        yield block


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Silences stderr for C libraries."""
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nothing)


def progress(title: str, waves: Iterable[Tensor], sample_rate: int, samples: int | None = None) -> Iterator[Tensor]:
    """The waves; meanwhile a bar of seconds of sound, on a terminal and for work of more than two seconds."""
    total = samples and samples // sample_rate
    with progress_bar(desc=title, total=total, unit="s", leave=False, delay=2) as bar:
        for wave in waves:
            yield wave
            bar.update(len(wave) / sample_rate)
