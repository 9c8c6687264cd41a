"""A decoding step of the tokenizer for a batch of streams, with all state in place (MiMo-Audio report, section 2.1).

CPU kernels; on other devices the ops are their definitions, few calls of torch each.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimo_audio_native.ops.register import register_fake
from mimo_audio_native.reference import stream_step as definition


def stream_layers(
    x: Tensor,
    layers: Sequence[Tensor],
    rights: Sequence[int],
    cache: Tensor,
    behind: Tensor,
    frequency: Tensor,
    position: Tensor,
    end: Tensor,
    active: Tensor | None,
    left: int,
    delay: int,
    activation: str,
    eps: float,
) -> Tensor:
    """The next rows of every stream through a stack of Transformer blocks that may look ahead.

    A block that sees R rows ahead works R rows behind its input, so that all it may see is there. With g the number of
    an input row of the stack and d of block l the sum of `delay` and the R of the blocks before it:

        keys      row g is position g - d; visible to the query of row h if 0 <= h - g <= left + R and if the position
                  exists, 0 <= g - d < end
        queries   row g is position g - d - R

    Args:
        x: [B, n, D], the next n rows of every stream; float32, bfloat16 or float16.
        layers: 15 tensors per block, in x's dtype: norm [D] and its bias [D], weights [D, D] and biases [D] of q, k
            (without bias), v and out, norm [D] and bias [D], fc1 [F, D] and bias [F], fc2 [D, F] and bias [D]. Empty
            norm biases mean RMS norms, else they are layer norms.
        rights: R of every block.
        cache: [B, L, 2, H, R', W] in x's dtype, contiguous: keys, rotated, and values of row g at g % R', where R' is
            at least left + the largest R + n; D = H W. Written in place.
        behind: [B, sum of rights, D] in x's dtype, contiguous: rows that wait in front of a block. Written in place.
        frequency: [W / 2] float64, the rotation in radians per position.
        position: [B] int64, rows that every stream had before, at least 0.
        end: [B] int64, positions of every stream, large while it is open.
        active: [B] bool, the streams that take part; the others' state stays and their results mean nothing. None: all.
        left: rows of memory. delay: rows that x lags behind its stream.
        activation: "gelu", "gelu_tanh", "relu" or "silu". eps: of the norms.

    Returns:
        [B, n, D] in x's dtype. On the CPU a stream's results depend neither on how its rows are cut into calls nor on
        other streams nor on threads, and activations are float32 for every dtype. Not differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or values.
    """
    return torch.ops.mimo.stream_layers(
        x, layers, rights, cache, behind, frequency, position, end, active, left, delay, activation, eps
    )


def stream_up_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    carry: Tensor,
    line: Tensor,
    sums: Tensor,
    position: Tensor,
    end: Tensor,
    active: Tensor | None,
    stride: int,
    group: int,
    keep: float,
    eps: float,
) -> Tensor:
    """The next rows of every stream through a transposed convolution and a group norm of one group.

    The norm's statistics are those of the stream so far: with every `group` rows of x the old ones fade by `keep`.

    Args:
        x: [B, n, I]; float32, bfloat16 or float16.
        weight: [I, O, K] of ConvTranspose1d, in x's dtype as bias [O] (or None), norm_weight [O] and norm_bias [O].
        carry: [B, K - stride, O] float32: what taps added beyond the last row. Written in place.
        line: [B, behind, O] float32: rows that wait for their norm. Written in place.
        sums: [B, 3] float64: how many numbers the statistics count, their sum, the sum of their squares. In place.
        position, end, active: as for ``stream_layers``, in rows of x; rows at or beyond the end are not counted.
        stride: of the convolution, at most K. group: divides n. keep: factor. eps: of the norm.

    Returns:
        [B, n * stride, O] in x's dtype, `behind` rows late. Independent of cuts into calls as ``stream_layers``, if
        calls have whole groups. Not differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or values.
    """
    return torch.ops.mimo.stream_up_convolution(
        x, weight, bias, norm_weight, norm_bias, carry, line, sums, position, end, active, stride, group, keep, eps
    )


def stream_istft(
    x: Tensor,
    window: Tensor,
    advance: Tensor | None,
    carry: Tensor,
    position: Tensor,
    end: Tensor,
    active: Tensor | None,
    hop: int,
    max_magnitude: float,
) -> Tensor:
    """The next frames of every stream through an inverse STFT: the samples that no later frame reaches.

    "same" padding: frame t covers n_fft samples from t hop - (n_fft - hop) / 2 on; a sample is divided by the sum of
    the squared windows of the frames that cover it.

    Args:
        x: [B, n, n_fft + 2] float32: log-magnitudes, then phases.
        window: [n_fft] float32.
        advance: [P, n_fft / 2 + 1] float32 or None: what is added to the phases of frame t, row t % P.
        carry: [B, 2, n_fft - hop] float32: signal and envelope that later frames add to. Written in place.
        position: [B] int64, the number of the first frame; frames below 0 are silent.
        end, active: as for ``stream_layers``, in frames; frames at or beyond the end are silent.
        hop: samples between frames, at most n_fft. max_magnitude: what magnitudes are clipped to.

    Returns:
        [B, n * hop] float32, (n_fft - hop) / 2 samples late. Independent of cuts into calls as ``stream_layers``. Not
        differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or values.
    """
    return torch.ops.mimo.stream_istft(x, window, advance, carry, position, end, active, hop, max_magnitude)


for _name in ("stream_layers", "stream_up_convolution", "stream_istft"):
    torch.library.impl(f"mimo::{_name}", "CUDA")(getattr(definition, _name))


@register_fake("mimo::stream_layers")
def _(x, layers, rights, cache, behind, frequency, position, end, active, left, delay, activation, eps) -> Tensor:
    return x.new_empty(x.shape)


@register_fake("mimo::stream_up_convolution")
def _(
    x, weight, bias, norm_weight, norm_bias, carry, line, sums, position, end, active, stride, group, keep, eps
) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] * stride, weight.shape[1]))


@register_fake("mimo::stream_istft")
def _(x, window, advance, carry, position, end, active, hop, max_magnitude) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] * hop))
