"""The decoder's up-convolutions over streams: taps that reach into the next step are carried over to it.

Their group norms are the one part that a stream cannot have exactly: offline its statistics come from the whole
sequence, the future included. Here they come from the stream so far, and from speech in general as long as that is
short: every stream starts with the statistics of speech in this model, counted as `PRIOR_FRAMES`, and forgets slowly
(a frame's weight falls to 1 / e in `SEGMENT_CODE_FRAMES`), since offline statistics too cover no more than such a
piece. A norm may wait for `behind` rows, so that its statistics know a little of the future. docs/streaming.md has the
deviation of all this and of the alternatives.
"""

import math

import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio.tokenizer.decoder import UpConvolution
from mimo_audio.tokenizer.model import SEGMENT_CODE_FRAMES
from mimo_audio.tokenizer.streaming.prior import Statistics
from mimo_audio.tokenizer.streaming.state import State


class StreamingUpConvolution:
    """`layer` for `rows` input rows per code frame and `step` code frames at once; its norm starts from `prior`.

    behind: output rows that the norm waits for.
    """

    def __init__(
        self, name: str, layer: UpConvolution, state: State, rows: int, step: int, prior: Statistics, behind: int = 0
    ) -> None:
        self.layer, self.group = layer, rows * step
        (self.stride,) = layer.conv.stride
        self.carry, self.line, self.sums = f"{name}.carry", f"{name}.behind", f"{name}.sums"
        self.keep = math.exp(-step / SEGMENT_CODE_FRAMES)
        count = prior.frames * rows * self.stride * layer.conv.out_channels
        total, squares = count * prior.mean, count * (prior.variance + prior.mean**2)
        state.add(self.carry, (layer.trim, layer.conv.out_channels), torch.float32)
        state.add(self.line, (behind, layer.conv.out_channels), torch.float32)
        state.add(self.sums, (3,), torch.float64, torch.tensor([count, total, squares], dtype=torch.float64))

    def step(self, x: Tensor, state: State, position: Tensor, end: Tensor, active: Tensor | None) -> Tensor:
        """x [B, n, in] -> [B, n * stride, out], `behind` rows late; n is a multiple of rows * step.

        position, end [B] int64: rows of x that the stream had before, and has at all.
        """
        conv, norm = self.layer.conv, self.layer.norm
        return mn.stream_up_convolution(
            x,
            conv.weight,
            conv.bias,
            norm.weight,
            norm.bias,
            state[self.carry],
            state[self.line],
            state[self.sums],
            position,
            end,
            active,
            self.stride,
            self.group,
            self.keep,
            norm.eps,
        )
