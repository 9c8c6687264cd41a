"""The cached decoder: one step of codes to samples for all streams of a batch, whatever each of them is at.

    codes 25 Hz -> up-convolution -> causal stack 50 Hz -> up-convolution -> vocoder stack 100 Hz -> overlap-add

All state is in a `State`, changed in place. On the CPU a call takes as many steps as there are codes for, up to
`together`: a frame's samples are the same bits however steps are put together, and weights are read once for all of
them. Elsewhere `step` is plain torch on tensors of fixed shape: no branch and no length depends on data, so it can be
captured in a CUDA graph, and equal steps give equal bits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import mimo_audio_native as mn
from mimo_audio.errors import StreamError
from mimo_audio.tokenizer.model import AudioTokenizer
from mimo_audio.tokenizer.streaming.attention import StreamingStack
from mimo_audio.tokenizer.streaming.overlap_add import StreamingISTFT
from mimo_audio.tokenizer.streaming.prior import Statistics
from mimo_audio.tokenizer.streaming.state import State
from mimo_audio.tokenizer.streaming.up_convolution import StreamingUpConvolution

OPEN = 1 << 40  # the end, in code frames, of a stream that has none yet
TOGETHER = 16  # code frames that one call may take on the CPU, unless a step has more


class DecoderPipeline:
    """A tokenizer's decoder and vocoder in steps of `step` code frames; adds what it remembers to `state`.

    look_ahead: code frames that the vocoder waits for; None for all that it was trained to see; what is beyond that
    goes to the statistics of the last group norm. context: code frames that attention without a left limit remembers.
    prior: statistics that the group norms start from, as `speech_statistics` gives them. Raises StreamError for a model
    or a setting that cannot stream.
    """

    def __init__(
        self,
        tokenizer: AudioTokenizer,
        state: State,
        step: int,
        look_ahead: int | None,
        context: int,
        prior: Sequence[Statistics],
    ) -> None:
        self.tokenizer, self.step_frames = tokenizer, step
        decoder, vocoder = tokenizer.decoder, tokenizer.vocoder
        pool, up = tokenizer.config.avg_pooler, tokenizer.config.decoder_stride_size
        if decoder.right != 0 or tokenizer.config.decoder_kernel_size < up:
            raise StreamError("model: expected a causal decoder whose up-convolutions leave no gaps")
        self.rate = pool * up  # mel frames per code frame
        self.together = max(1, TOGETHER // step) if tokenizer.device.type == "cpu" else 1  # most steps in one call
        most = step * self.together
        state.add("clock", (), torch.int64)  # steps done
        state.add("end", (), torch.int64, OPEN)
        *first, second = prior
        self.up1 = (
            StreamingUpConvolution("dconv1", decoder.dconv1, state, 1, step, first[0]) if decoder.dconv1 else None
        )
        wanted = None if look_ahead is None else look_ahead * self.rate
        rights = _rights(vocoder.right, len(vocoder.layers), wanted)
        waits = max(0, (wanted or 0) - sum(rights))
        self.up2 = StreamingUpConvolution("dconv2", decoder.dconv2, state, pool, step, second, waits)
        self.decoder = StreamingStack(
            "decoder", decoder, state, pool * most, _memory(decoder.left, context * pool), [0] * len(decoder.layers)
        )
        self.vocoder = StreamingStack(
            "vocoder", vocoder, state, self.rate * most, _memory(vocoder.left, context * self.rate), rights, waits
        )
        self.istft = StreamingISTFT(vocoder.head.istft, state)
        self.hop = tokenizer.config.hop_length
        self.samples = self.rate * self.hop  # per code frame
        self.delay = self.vocoder.delays[-1] * self.hop + self.istft.trim  # samples

    @torch.no_grad()
    def step(self, codes: Tensor, active: Tensor | None, state: State) -> Tensor:
        """codes [R', B, n * step] -> samples [B, n * step * samples] float32, `delay` behind; n is 1 .. together.

        active [B] bool: who takes part (None: all); the others keep their state, and their samples mean nothing. Codes
        beyond a stream's `state["end"]` are ignored (but must be codes).
        """
        tokenizer, clock, end, frames = self.tokenizer, state["clock"], state["end"], codes.shape[2]
        pool, position = tokenizer.config.avg_pooler, clock * self.step_frames
        x = tokenizer.quantizer.decode(codes.flatten(1)).view(state.batch, frames, -1)
        x = x.to(tokenizer.decoder.dconv2.conv.weight.dtype)
        if self.up1 is not None:
            x = self.up1.step(x, state, position, end, active)
        x = self.decoder.step(x, state, position * pool, end * pool, active)
        x = self.up2.step(tokenizer.decoder.layer_norm(x), state, position * pool, end * pool, active)
        position, end, vocoder = position * self.rate, end * self.rate, tokenizer.vocoder
        x = self.vocoder.step(_linear(vocoder.embeddings, x), state, position, end, active)
        x = _linear(vocoder.head.out, vocoder.layer_norm(x))
        wave = self.istft.step(x, state, position - self.vocoder.delays[-1], end, active)
        steps = frames // self.step_frames
        clock += steps if active is None else active * steps
        return wave


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer` of x [B, n, in]; on the CPU by a product whose rows do not depend on how many there are."""
    if x.device.type != "cpu":
        return layer(x)
    return mn.linear(x.flatten(0, 1), layer.weight, layer.bias).view(*x.shape[:2], -1)


def _memory(left: int, context: int) -> int:
    """Frames that a stack remembers, from its window's left side (-1: unlimited) and the setting."""
    return context if left < 0 else min(left, context)


def _rights(limit: int, layers: int, frames: int | None) -> list[int]:
    """`frames` of look-ahead (None: all) over the layers, as evenly as it goes, none beyond its window's right side."""
    if frames is None:
        if limit < 0:
            raise StreamError("look_ahead: expected a number, the vocoder of this model looks ahead without limit")
        return [limit] * layers
    frames = frames if limit < 0 else min(frames, limit * layers)
    return [frames * (i + 1) // layers - frames * i // layers for i in range(layers)]
