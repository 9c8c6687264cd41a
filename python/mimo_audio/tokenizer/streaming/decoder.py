"""StreamDecoder: codes in, sound out, for one stream or many, each frame computed once."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mimo_audio.errors import CodesError, StreamError
from mimo_audio.tokenizer.model import SEGMENT_CODE_FRAMES, AudioTokenizer
from mimo_audio.tokenizer.streaming.pipeline import DecoderPipeline
from mimo_audio.tokenizer.streaming.prior import Statistics, speech_statistics
from mimo_audio.tokenizer.streaming.settings import check_setting
from mimo_audio.tokenizer.streaming.state import State


@dataclass(frozen=True)
class _Row:
    """What the host knows of a stream: it never asks the device."""

    pending: Tensor  # [n_q, m] codes that do not fill a step yet
    frames: int = 0  # pushed
    steps: int = 0  # done
    finished: bool = False


class StreamDecoder:
    """Decodes up to `batch` streams of codes as they arrive, each frame once.

    look_ahead: code frames that the vocoder waits for; None for all that it sees offline (40 in the release). Fewer
    give sound earlier, more go to the statistics of a norm (docs/streaming.md has the deviations). n_q: codebooks that
    the codes have; None for all. step: code frames that a stream waits for; the CPU keeps up with 1, a GPU takes far
    less time per frame for 4, a patch of the language model. context: code frames that a decoder without window
    remembers. prior: what the norms start from; None for the statistics of speech. Raises StreamError.

        with StreamDecoder(tokenizer) as stream:
            for chunk in chunks:  # [n_q, any number]
                play(stream.push(chunk))
            play(stream.finish())

    A stream's samples depend on its own codes only, bit for bit, however they are cut into chunks and whatever its
    neighbours do. Time and memory per frame are constant.
    """

    def __init__(
        self,
        tokenizer: AudioTokenizer,
        batch: int = 1,
        look_ahead: int | None = None,
        n_q: int | None = None,
        step: int = 1,
        context: int = SEGMENT_CODE_FRAMES,
        prior: Sequence[Statistics] | None = None,
    ) -> None:
        codebooks = len(tokenizer.config.codebook_size)
        check_setting("batch", batch, 1)
        check_setting("look_ahead", look_ahead, 0, SEGMENT_CODE_FRAMES, optional=True)
        check_setting("n_q", n_q, 1, codebooks, optional=True)
        check_setting("step", step, 1)
        check_setting("context", context, 1)
        self.tokenizer, self.batch, self.n_q, self.frames = tokenizer, batch, n_q or codebooks, step
        self.state = State(batch, tokenizer.device)
        prior = speech_statistics(tokenizer) if prior is None else prior
        self.pipeline = DecoderPipeline(tokenizer, self.state, step, look_ahead, context, prior)
        self._new = _Row(torch.zeros(self.n_q, 0, dtype=torch.int64, device=tokenizer.device))
        self._rows = [self._new] * batch
        self._closed = False

    @property
    def delay(self) -> int:
        """Samples that a frame's sound comes later than the frame: look-ahead and overlap of the inverse STFT."""
        return self.pipeline.delay

    def push(self, codes: Tensor | Sequence[Tensor | None]) -> Tensor | list[Tensor]:
        """The next codes [n_q, n], or for every stream of the batch its own (None: nothing now) -> what is ready.

        One tensor gives one wave [N] float32, a sequence a list of them, maybe empty ones. Raises CodesError for a bad
        chunk and StreamError for a finished stream, naming the row; then no stream has changed.
        """
        self._check_open()
        single = self.batch == 1 and isinstance(codes, Tensor) and codes.dim() == 2
        if not isinstance(codes, Sequence | Tensor):
            raise StreamError(f"codes: expected chunks for {self.batch} streams, got {type(codes).__name__}")
        chunks = cast(list[Tensor | None], [codes] if single else list(codes))
        if len(chunks) != self.batch:
            raise StreamError(f"codes: expected one chunk for each of {self.batch} streams, got {len(chunks)}")
        for number, chunk in enumerate(chunks):
            if chunk is not None:
                self._check(number, chunk)
        for number, chunk in enumerate(chunks):
            if chunk is not None:
                row = self._rows[number]
                pending = torch.cat([row.pending, chunk.to(row.pending)], 1)
                self._rows[number] = replace(row, pending=pending, frames=row.frames + chunk.shape[1])
        waves = self._run()
        return waves[0] if single else waves

    def finish(self, row: int | None = None) -> Tensor | list[Tensor]:
        """Ends one stream, or all -> what they still held; afterwards `reset` makes room for a new one.

        A wave [N] for one row or a batch of one, else a list. Raises StreamError if the row is finished already.
        """
        self._check_open()
        single = self.batch == 1 or row is not None
        if single:
            row = self._check_row(row or 0)
            if self._rows[row].finished:
                raise StreamError(f"stream {row}: finished already")
        for number in range(self.batch) if row is None else [row]:
            one = self._rows[number]
            if not one.finished:
                filled = F.pad(one.pending, (0, -one.frames % self.frames))
                self._rows[number] = replace(one, pending=filled, finished=True)
                self.state["end"][number] = one.frames
        waves = self._run()
        return waves[row or 0] if single else waves

    def reset(self, row: int | None = None) -> None:
        """Forgets one stream, or all: the next codes start a new one there."""
        self._check_open()
        if row is not None:
            self._check_row(row)
        self.state.reset(row)
        for number in range(self.batch) if row is None else [row]:
            self._rows[number] = self._new

    def copy(self) -> StreamDecoder:
        """A decoder of its own that goes on from here; it shares the model."""
        self._check_open()
        twin = copy(self)
        twin.state, twin._rows = self.state.copy(), list(self._rows)
        return twin

    def copy_row(self, source: int, target: int) -> None:
        """Makes stream `target` go on from where `source` is."""
        self._check_open()
        for row in (source, target):
            self._check_row(row)
        self.state.copy_row(source, target)
        self._rows[target] = self._rows[source]

    def close(self) -> None:
        """Frees the state; the decoder cannot be used any more."""
        self._closed = True
        self._rows = []
        self.state = State(0, self.tokenizer.device)

    def __enter__(self) -> StreamDecoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> list[Tensor]:
        """Steps as long as a stream has frames for one, or is finished and still holds sound; the waves of all."""
        waves: list[list[Tensor]] = [[] for _ in self._rows]
        while True:
            left = [self._steps_left(row) for row in self._rows]
            if not any(left):
                # A view would keep all codes that were ever pushed with it.
                self._rows = [replace(row, pending=row.pending.clone()) for row in self._rows]
                nothing = torch.empty(0, device=self.tokenizer.device, dtype=torch.float32)
                return [torch.cat(pieces) if pieces else nothing for pieces in waves]
            steps = min(self.pipeline.together, *filter(None, left))
            frames = steps * self.frames
            codes = torch.stack([F.pad(row.pending, (0, frames))[:, :frames] for row in self._rows], 1)
            active = None if all(left) else torch.tensor([bool(n) for n in left], device=codes.device)
            samples = self.pipeline.step(codes, active, self.state)
            for number, row in enumerate(self._rows):
                if left[number]:
                    done = replace(row, pending=row.pending[:, frames:], steps=row.steps + steps)
                    # Where the first sample of what was computed lies.
                    behind = row.steps * self.frames * self.pipeline.samples - self.delay
                    first, last = self._given(row) - behind, self._given(done) - behind
                    waves[number].append(samples[number, first:last])
                    self._rows[number] = done

    def _given(self, row: _Row) -> int:
        """Samples that the stream's steps have completed."""
        samples = self.pipeline.samples
        most = row.frames * samples
        return max(0, min(row.steps * self.frames * samples - self.delay, most))

    def _steps_left(self, row: _Row) -> int:
        """Steps that the stream has codes for; once it is finished, those that give what it still holds."""
        if not row.finished:
            return row.pending.shape[1] // self.frames
        if row.frames == 0:
            return 0
        last = row.frames * self.pipeline.samples + self.delay
        return max(0, -(-last // (self.frames * self.pipeline.samples)) - row.steps)

    def _check_open(self) -> None:
        if self._closed:
            raise StreamError("stream: closed, expected an open one")

    def _check_row(self, row: int) -> int:
        if not isinstance(row, int) or not 0 <= row < self.batch:
            raise StreamError(f"row: expected 0 .. {self.batch - 1}, got {row!r}")
        return row

    def _check(self, number: int, chunk: Tensor) -> None:
        if self._rows[number].finished:
            raise StreamError(f"stream {number}: finished, expected no more codes before a reset")
        try:
            self.tokenizer.check_codes(chunk, empty=True)
            if len(chunk) != self.n_q:
                raise CodesError(f"codes: expected {self.n_q} codebooks, got shape {list(chunk.shape)}")
        except CodesError as error:
            raise CodesError(f"stream {number}: {error}") from error
