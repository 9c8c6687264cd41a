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

from mimo_audio.tokenizer.decoder import UpConvolution
from mimo_audio.tokenizer.model import SEGMENT_CODE_FRAMES
from mimo_audio.tokenizer.streaming.prior import Statistics
from mimo_audio.tokenizer.streaming.state import State


class StreamingUpConvolution:
    """`layer` for `rows` input rows per code frame and `step` code frames a step; its norm starts from `prior`.

    behind: output rows that the norm waits for.
    """

    def __init__(
        self, name: str, layer: UpConvolution, state: State, rows: int, step: int, prior: Statistics, behind: int = 0
    ) -> None:
        self.layer, self.frames = layer, rows * step
        (self.kernel,), (self.stride,) = layer.conv.kernel_size, layer.conv.stride
        self.carry, self.sums = f"{name}.carry", f"{name}.sums"
        self.line = f"{name}.behind"
        self.keep = math.exp(-step / SEGMENT_CODE_FRAMES)
        count = prior.frames * rows * self.stride * layer.conv.out_channels
        total, squares = count * prior.mean, count * (prior.variance + prior.mean**2)
        state.add(self.carry, (layer.trim, layer.conv.out_channels), layer.conv.weight.dtype)
        state.add(self.line, (behind, layer.conv.out_channels), layer.conv.weight.dtype)
        state.add(self.sums, (3,), torch.float64, torch.tensor([count, total, squares], dtype=torch.float64))

    def step(self, x: Tensor, state: State, exists: Tensor, active: Tensor | None) -> Tensor:
        """x [B, frames, in] -> [B, frames * stride, out], `behind` rows late.

        exists [B, frames] bool: rows of x before the stream's end.
        """
        conv, stride = self.layer.conv, self.stride
        taps = (x @ conv.weight.transpose(1, 2).flatten(1)).unflatten(-1, (self.kernel, -1))
        y = taps.new_zeros(len(x), self.frames * stride + self.layer.trim, conv.out_channels)
        y[:, : self.layer.trim] = state[self.carry]
        for i in range(self.frames):
            y[:, i * stride : i * stride + self.kernel] += taps[:, i]
        state.update(self.carry, active, y[:, self.frames * stride :])
        y = y[:, : self.frames * stride]
        return self._normalized(y if conv.bias is None else y + conv.bias, state, exists, active).to(x.dtype)

    def _normalized(self, y: Tensor, state: State, exists: Tensor, active: Tensor | None) -> Tensor:
        norm = self.layer.norm
        wide = y.double()
        weight = exists.repeat_interleave(self.stride, 1)[..., None].double()
        counted = wide * weight
        new = torch.stack([weight.sum((1, 2)) * y.shape[2], counted.sum((1, 2)), (counted * wide).sum((1, 2))], 1)
        state.update(self.sums, active, state[self.sums] * self.keep + new)
        line = torch.cat([state[self.line], y], 1)
        state.update(self.line, active, line[:, y.shape[1] :])
        count, total, squares = state[self.sums][:, :, None, None].unbind(1)
        mean = total / count
        scale = (squares / count - mean.square() + norm.eps).rsqrt()
        return ((line[:, : y.shape[1]] - mean) * scale).float() * norm.weight.float() + norm.bias.float()
