"""The sound of all streams of a model, decoded together: one batched StreamDecoder, a row per stream.

Whoever has codes to decode takes those of all others along that have arrived meanwhile. The batch has one size, so that
a stream's samples depend on its own codes alone; where all rows are taken, another decoder of that size is opened.
"""

from threading import Condition

import torch
from torch import Tensor

from mimo_audio.errors import GenerationError, MimoError
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.streaming import StreamDecoder

LOOK_AHEAD = 2  # code frames that the vocoder waits for: hardly heard (docs/streaming.md), 95 ms
CONTEXT = 250  # code frames that the decoder remembers, as in published streaming


class Voice:
    """One stream of sound; `close` gives its row back."""

    def __init__(self, rows: "_Rows", row: int) -> None:
        self._rows, self._row = rows, row

    def push(self, codes: Tensor) -> Tensor:
        """Codes [C, n] -> the samples that are ready [N], float32 on the CPU. Raises CodesError."""
        return self._rows.decode(self._row, codes)

    def finish(self) -> Tensor:
        """What the stream still held."""
        return self._rows.decode(self._row, None)

    def close(self) -> None:
        """The stream is over; twice is once."""
        if self._row >= 0:
            self._rows.free(self._row)
            self._row = -1


class Voices:
    """Opens streams of sound for a tokenizer; `batch` rows are decoded at once, `step` frames at a time."""

    def __init__(self, tokenizer: AudioTokenizer, n_q: int, step: int, batch: int) -> None:
        self._tokenizer, self._n_q, self._step, self._batch = tokenizer, n_q, step, batch
        self._all: list[_Rows] = []
        self._lock = Condition()

    def open(self) -> Voice:
        """A new stream."""
        with self._lock:
            for rows in self._all:
                row = rows.take()
                if row is not None:
                    return Voice(rows, row)
            decoder = StreamDecoder(
                self._tokenizer, self._batch, LOOK_AHEAD, n_q=self._n_q, step=self._step, context=CONTEXT
            )
            self._all.append(_Rows(decoder))
            row = self._all[-1].take()
            assert row is not None
            return Voice(self._all[-1], row)


class _Rows:
    """A decoder, and who has which row of it."""

    def __init__(self, decoder: StreamDecoder) -> None:
        self._decoder = decoder
        self._free = list(range(decoder.batch))[::-1]
        self._wanted: dict[int, Tensor | None] = {}  # codes to decode, or None to finish
        self._made: dict[int, Tensor | Exception] = {}
        self._changed = Condition()
        self._busy = False

    def take(self) -> int | None:
        with self._changed:
            if not self._free:
                return None
            self._changed.wait_for(lambda: not self._busy)
            row = self._free.pop()
            self._decoder.reset(row)
            return row

    def free(self, row: int) -> None:
        with self._changed:
            self._free.append(row)

    def decode(self, row: int, codes: Tensor | None) -> Tensor:
        with self._changed:
            self._wanted[row] = codes
            self._changed.wait_for(lambda: row in self._made or not self._busy)
            if row not in self._made:
                self._busy, wanted, self._wanted = True, self._wanted, {}
            else:
                return self._take(row)
        made: dict[int, Tensor | Exception] = dict.fromkeys(wanted, GenerationError("decoding was interrupted"))
        try:
            made = self._run(wanted)
        except Exception as error:
            made = dict.fromkeys(wanted, error)
        finally:
            with self._changed:  # at once: whoever finds nobody busy must find what was made for it
                self._busy = False
                self._made |= made
                own = self._made.pop(row)
                self._changed.notify_all()
        if isinstance(own, Exception):
            raise own
        return own

    def _take(self, row: int) -> Tensor:
        made = self._made.pop(row)
        if isinstance(made, Exception):
            raise made
        return made

    @torch.no_grad()
    def _run(self, wanted: dict[int, Tensor | None]) -> dict[int, Tensor | Exception]:
        decoder, made = self._decoder, dict[int, Tensor | Exception]()
        pushed = {row: codes for row, codes in wanted.items() if codes is not None}
        if pushed:
            try:
                waves = decoder.push([pushed.get(row) for row in range(decoder.batch)])
                made |= {row: waves[row].cpu() for row in pushed}
            except MimoError as error:  # somebody's codes are none: then nobody's have been taken
                if len(pushed) == 1:
                    return made | dict.fromkeys(pushed, error)
                for row, own in pushed.items():
                    made |= self._run({row: own})
        for row, codes in wanted.items():
            if codes is None:
                last = decoder.finish(row)
                assert isinstance(last, Tensor)
                made[row] = last.cpu()
        return made
