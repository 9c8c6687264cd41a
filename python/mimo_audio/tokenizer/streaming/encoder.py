"""StreamEncoder: sound in, codes out, for live input.

The encoder looks both ways, without limit in the release, so a stream's codes cannot be quite the offline ones: groups
of `step` frames are encoded as if the wave began `context` frames before and ended `look_ahead` frames after them.

    code frames        | context            | step        | look_ahead |
    encoded together   |-------------------------------------------------|
    codes given                             |-------------|

Where groups lie depends on nothing but the wave, so codes do not depend on how it arrives.
"""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from mimo_audio.errors import StreamError
from mimo_audio.files import audio
from mimo_audio.tokenizer.mel import MelStream
from mimo_audio.tokenizer.model import SEGMENT_CODE_FRAMES, AudioTokenizer
from mimo_audio.tokenizer.streaming.settings import check_setting


class StreamEncoder:
    """Encodes one wave at the model's rate as it arrives, in bounded memory.

    Codes come in groups of `step` frames, each encoded with up to `context` code frames before and `look_ahead` after
    it; their sum over `step` is how often a frame is computed. n_q: codebooks wanted; None for all. Raises StreamError.
    """

    def __init__(
        self, tokenizer: AudioTokenizer, look_ahead: int = 16, n_q: int | None = None, step: int = 4, context: int = 100
    ) -> None:
        codebooks = len(tokenizer.config.codebook_size)
        check_setting("look_ahead", look_ahead, 0, SEGMENT_CODE_FRAMES)
        check_setting("n_q", n_q, 1, codebooks, optional=True)
        check_setting("step", step, 1)
        check_setting("context", context, 0)
        self.tokenizer, self.n_q = tokenizer, n_q or codebooks
        self.look_ahead, self.frames, self.context = look_ahead, step, context
        config = tokenizer.config
        self.rate = config.stride_size * config.avg_pooler  # mel frames per code frame
        self.block = self.rate * config.hop_length  # samples per code frame; the mel takes them in such blocks
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Forgets the wave: the next samples start a new one."""
        self._check_open()
        self._mel = MelStream(self.tokenizer.mel)
        self._wave = torch.empty(
            0, device=self.tokenizer.device, dtype=torch.float32
        )  # samples that do not fill a block yet
        self._frames = self._wave.new_empty(0, self.tokenizer.config.n_mels)  # mel frames from code frame `_start` on
        self._start = self._given = 0  # code frames
        self._finished = False

    @torch.no_grad()
    def push(self, wave: Tensor) -> Tensor:
        """The next samples [N], any number, at the model's rate -> codes [n_q, T'] that are ready, maybe none.

        Raises AudioError for anything but finite samples, StreamError after `finish`; then nothing has changed.
        """
        self._check_unfinished()
        self._wave = torch.cat([self._wave, audio.check_wave(wave, empty=True).to(self._wave)])
        full = len(self._wave) - len(self._wave) % self.block
        self._hear(self._wave[:full])
        self._wave = self._wave[full:].clone()  # a view would keep all of it
        ready = self._start + len(self._frames) // self.rate - self.look_ahead
        return self._encoded(ready - ready % self.frames)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """The wave ends here -> the codes [n_q, T'] of what is left. Raises StreamError if it ended before."""
        self._check_unfinished()
        self._finished = True
        self._hear(self._wave)
        self._frames = torch.cat([self._frames, self._mel.finish()])
        rest = len(self._frames)
        return self._encoded(self._start + self.tokenizer.encoder.output_length(rest) if rest else 0)

    def copy(self) -> StreamEncoder:
        """An encoder of its own that goes on from here; it shares the model."""
        self._check_open()
        twin = copy(self)
        twin._mel = copy(self._mel)  # whose tensors are replaced, never written
        return twin

    def close(self) -> None:
        """Frees the state; the encoder cannot be used any more."""
        self.reset()
        self._closed = True

    def __enter__(self) -> StreamEncoder:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._closed:
            self.close()

    def _hear(self, wave: Tensor) -> None:
        """Adds the mel frames of samples, block by block: the same blocks however they came."""
        blocks = wave.split(self.block) if len(wave) else ()
        self._frames = torch.cat([self._frames, *(self._mel.push(block) for block in blocks)])

    def _encoded(self, ready: int) -> Tensor:
        """Codes of the groups up to code frame `ready`; then forgets what no later group needs."""
        codes = [torch.empty(self.n_q, 0, dtype=torch.int64, device=self.tokenizer.device)]
        while self._given < ready:
            start = max(0, self._given - self.context)
            end = min(self._given + self.frames, ready)
            window = self._frames[(start - self._start) * self.rate : (end + self.look_ahead - self._start) * self.rate]
            features = self.tokenizer.encode_features(window)[self._given - start : end - start]
            codes.append(self.tokenizer.quantize(features, self.n_q))
            self._given = end
        start = max(self._start, self._given - self.context)
        self._frames, self._start = self._frames[(start - self._start) * self.rate :].clone(), start
        return torch.cat(codes, 1)

    def _check_open(self) -> None:
        if self._closed:
            raise StreamError("stream: closed, expected an open one")

    def _check_unfinished(self) -> None:
        self._check_open()
        if self._finished:
            raise StreamError("stream: finished, expected no more before a reset")
