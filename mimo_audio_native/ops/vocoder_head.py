"""The vocoder's output head: magnitude and phase to waveform (MiMo-Audio report, section 2.1)."""

import torch
from torch import Tensor

from mimo_audio_native.ops.constants import require_constant
from mimo_audio_native.ops.register import (
    float32_under_autocast,
    refuse_forward_mode,
    refuse_second_derivative,
    register_fake,
)


@refuse_forward_mode
def vocoder_head(
    x: Tensor, window: Tensor, hop: int, cu_seqlens: Tensor | None = None, max_magnitude: float = 100.0
) -> Tensor:
    """Waveforms of packed sequences of log-magnitude and phase frames, each sequence on its own.

    Args:
        x: [T, n_fft + 2] float32 or float64: log-magnitudes of the n_fft / 2 + 1 bins, then their phases in radians;
            n_fft at most 8192, no prime factors other than 2, 3 and 5.
        window: [n_fft]; a constant: it must not require grad.
        hop: samples from frame to frame, at most n_fft.
        cu_seqlens: [B + 1] int32 or int64: sequence b is rows cu_seqlens[b] .. cu_seqlens[b + 1]; starts at 0, never
            decreases, ends at T. None: one sequence.
        max_magnitude: larger magnitudes are clipped, without gradient.

    Returns:
        [T * hop] samples; sequence b is cu_seqlens[b] * hop .. cu_seqlens[b + 1] * hop. Differentiable once with
        respect to x.

    Raises:
        RuntimeError: wrong shapes, dtypes, devices or sizes, bad cu_seqlens (on CUDA the kernel traps); a window that
            requires grad.

    Equivalent, for one sequence, to ``istft(torch.polar(x[:, :F].exp().clamp(max=max_magnitude), x[:, F:]))``.
    """
    return torch.ops.mimo.vocoder_head(x, window, hop, cu_seqlens, max_magnitude)


@register_fake("mimo::vocoder_head")
def _(x: Tensor, window: Tensor, hop: int, cu_seqlens: Tensor | None = None, max_magnitude: float = 100.0) -> Tensor:
    return x.new_empty((x.shape[0] * hop,))


@register_fake("mimo::vocoder_head_backward")
def _(grad: Tensor, x: Tensor, window: Tensor, hop: int, cu_seqlens: Tensor | None, max_magnitude: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output) -> None:
    x, window, ctx.hop, cu_seqlens, ctx.max_magnitude = inputs
    require_constant("vocoder_head", window, "window")
    ctx.save_for_backward(x, window, cu_seqlens)


def _backward(ctx, grad: Tensor):
    x, window, cu_seqlens = ctx.saved_tensors
    x_grad = torch.ops.mimo.vocoder_head_backward(grad, x, window, ctx.hop, cu_seqlens, ctx.max_magnitude)
    return x_grad, None, None, None, None


torch.library.register_autograd("mimo::vocoder_head", _backward, setup_context=_setup)
refuse_second_derivative("mimo::vocoder_head_backward")
float32_under_autocast("mimo::vocoder_head", "mimo::vocoder_head_backward")
