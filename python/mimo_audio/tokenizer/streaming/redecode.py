"""Streaming decode as published: every call decodes its context again and holds back what the vocoder cannot yet see.

For comparison with the release. A call costs up to `left` frames besides its own, and a seam between calls can be
heard: the group norms of every call take their statistics over the frames of that call. `StreamDecoder` has neither.

    frames decoded    | context, given before | given now | held back |      given = decoded, held-back part excluded
    kept for the next call             | the last `left` frames       |
"""

import torch
from torch import Tensor

from mimo_audio.errors import StreamError
from mimo_audio.tokenizer.model import AudioTokenizer

LEFT, RIGHT = 250, 40  # code frames; 40 is the reach of the released vocoder: 10 frames x 16 layers at 100 Hz


class RedecodingDecoder:
    """One stream of codes by re-decoding. Published batches let padding leak into short rows; here a row is an object.

    left: code frames kept for the next call, those held back included. right: code frames held back. Raises StreamError
    if not 0 <= right < left.
    """

    def __init__(self, tokenizer: AudioTokenizer, left: int = LEFT, right: int = RIGHT) -> None:
        if not 0 <= right < left:
            raise StreamError(f"right: expected 0 .. {left - 1} (less than left), got {right}")
        self.tokenizer, self.left, self.right = tokenizer, left, right
        self._kept: Tensor | None = None  # [R', at most left]
        self._given = 0  # frames of `_kept` whose wave was returned
        self._finished = False

    def push(self, codes: Tensor, last: bool = False) -> Tensor:
        """codes [R', n] -> wave [N] float32 of the frames that are ready now, maybe none; `last` also gives those held.

        Raises CodesError for bad codes, StreamError after the last call; neither changes the stream.
        """
        if self._finished:
            raise StreamError("stream: finished, expected no more codes")
        self.tokenizer.check_codes(codes, empty=True)
        codes = codes.to(self.tokenizer.device, torch.int64)
        if self._kept is not None:
            if len(codes) != len(self._kept):
                raise StreamError(f"codes: expected {len(self._kept)} codebooks as before, got {len(codes)}")
            codes = torch.cat([self._kept, codes], 1)
        ready = codes.shape[1] - (0 if last else self.right)
        wave = torch.empty(0, device=self.tokenizer.device, dtype=torch.float32)
        if ready > self._given:
            decoded = self.tokenizer.decode(codes)
            samples = len(decoded) // codes.shape[1]
            wave, self._given = decoded[self._given * samples : ready * samples], ready
        self._finished = last
        dropped = max(0, codes.shape[1] - self.left)
        self._kept, self._given = codes[:, dropped:], max(0, self._given - dropped)
        return wave
