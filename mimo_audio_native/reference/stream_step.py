"""Definitions of a decoding step for streams: Transformer blocks, up-convolution, inverse STFT (report, section 2.1).

They are also what devices without kernels run: few calls, no question to the device, shapes that never change, so that
a step can be captured in a CUDA graph.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
BLOCK_TENSORS = 15


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
    """x [B, n, D] -> [B, n, D], writing cache and behind; see ``mimo_audio_native``."""
    rows = x.shape[1]
    heads, ring = cache.shape[3], cache.shape[4]
    g = position[:, None] + torch.arange(rows, device=x.device)  # [B, n]
    slots = g % ring
    streams = torch.arange(len(x), device=x.device)[:, None]
    slot = torch.arange(ring, device=x.device)
    newest = g[:, -1:]
    key = newest - (newest - slot) % ring  # [B, ring], the row that every slot holds
    distance = g[:, :, None] - key[:, None]
    delays = list(accumulate(rights, initial=delay))
    masks = {}
    for right, late in set(zip(rights, delays, strict=False)):
        exists = (key >= late) & (key < end[:, None] + late)
        visible = (distance >= 0) & (distance <= left + right) & exists[:, None]
        hidden = torch.zeros(visible.shape, dtype=x.dtype, device=x.device)
        # The least number, not -inf: a row that sees nothing must stay finite.
        masks[right, late] = hidden.masked_fill(~visible, torch.finfo(x.dtype).min)[:, None]

    def rotation(position: Tensor) -> tuple[Tensor, Tensor]:
        """cos, cos and -sin, sin, [B, n, 1, W]; float64 angles: hour ten is as exact as second one."""
        angle = (position[..., None].double() * frequency)[:, :, None]
        cos, sin = (wave.to(torch.promote_types(x.dtype, torch.float32)) for wave in (angle.cos(), angle.sin()))
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        wide = x.to(rotation[0].dtype)
        return torch.addcmul(wide * rotation[0], wide.roll(x.shape[-1] // 2, -1), rotation[1]).to(x.dtype)

    def normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return (
            F.layer_norm(x, weight.shape, weight, bias, eps) if len(bias) else F.rms_norm(x, weight.shape, weight, eps)
        )

    def remember(index: int, part: int, new: Tensor) -> Tensor:
        """Puts [B, n, H, W] into the ring and gives all of it, [B, H, ring, W]."""
        room = cache[:, index, part]
        at = (streams, slice(None), slots)
        room[at] = new if active is None else torch.where(active[:, None, None, None], new, room[at])
        return room

    rotations = {right: rotation(g - right) for right in {0, *rights}}
    waiting = behind.split(list(rights), 1)
    for index, right in enumerate(rights):
        block = layers[index * BLOCK_TENSORS : (index + 1) * BLOCK_TENSORS]
        norm_1, norm_1_bias, q, q_bias, k, v, v_bias, out, out_bias, norm_2, norm_2_bias, *rest = block
        fc1, fc1_bias, fc2, fc2_bias = rest
        y = normed(x, norm_1, norm_1_bias)
        keys = remember(index, 0, rotated(F.linear(y, k).unflatten(-1, (heads, -1)), rotations[0]))
        values = remember(index, 1, F.linear(y, v, v_bias).unflatten(-1, (heads, -1)))
        if right:
            line = torch.cat([waiting[index], x], 1)
            update(waiting[index], active, line[:, rows:])
            x = line[:, :rows]
            y = normed(x, norm_1, norm_1_bias)
        query = rotated(F.linear(y, q, q_bias).unflatten(-1, (heads, -1)), rotations[right]).transpose(1, 2)
        y = F.scaled_dot_product_attention(query, keys, values, masks[right, delays[index]])
        x = x + F.linear(y.transpose(1, 2).flatten(-2), out, out_bias)
        x = x + F.linear(
            ACTIVATIONS[activation](F.linear(normed(x, norm_2, norm_2_bias), fc1, fc1_bias)), fc2, fc2_bias
        )
    return x


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
    """x [B, n, I] -> [B, n * stride, O], writing carry, line and sums; see ``mimo_audio_native``."""
    rows, (_, outputs, kernel) = x.shape[1], weight.shape
    taps = (x @ weight.transpose(1, 2).flatten(1)).unflatten(-1, (kernel, -1)).to(carry.dtype)
    y = F.pad(carry, (0, 0, 0, rows * stride))
    for i in range(rows):
        y[:, i * stride : i * stride + kernel] += taps[:, i]
    update(carry, active, y[:, rows * stride :])
    y = y[:, : rows * stride] if bias is None else y[:, : rows * stride] + bias
    late = torch.cat([line, y], 1)
    update(line, active, late[:, y.shape[1] :])
    exists = position[:, None] + torch.arange(rows, device=x.device) < end[:, None]
    weights = exists.repeat_interleave(stride, 1)[..., None].double()
    results = []
    for start in range(0, rows * stride, group * stride):
        wide, weighed = (t[:, start : start + group * stride] for t in (y.double(), weights))
        counted = wide * weighed
        new = torch.stack([weighed.sum((1, 2)) * outputs, counted.sum((1, 2)), (counted * wide).sum((1, 2))], 1)
        update(sums, active, sums * keep + new)
        count, total, squares = sums[:, :, None, None].unbind(1)
        mean = total / count
        scale = (squares / count - mean.square() + eps).rsqrt()
        normed = ((late[:, start : start + group * stride] - mean) * scale).to(y.dtype)
        results.append(normed * norm_weight.to(y.dtype) + norm_bias.to(y.dtype))
    return torch.cat(results, 1).to(x.dtype)


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
    """x [B, n, n_fft + 2] -> [B, n * hop], writing carry; see ``mimo_audio_native``."""
    frames, n_fft = x.shape[1], len(window)
    frame = position[:, None] + torch.arange(frames, device=x.device)
    log_magnitude, phase = x.chunk(2, -1)
    if advance is not None:
        phase = phase + advance[frame % len(advance)]
    signal = torch.fft.irfft(torch.polar(log_magnitude.exp().clamp(max=max_magnitude), phase), n_fft) * window
    pieces = torch.stack([signal, window.square().expand_as(signal)], 1)  # [B, 2, n, n_fft]
    exists = (frame >= 0) & (frame < end[:, None])
    pieces = torch.where(exists[:, None, :, None], pieces, 0)
    total = F.pad(carry, (0, frames * hop))
    for i in range(frames):
        total[:, :, i * hop : i * hop + n_fft] += pieces[:, :, i]
    update(carry, active, total[:, :, frames * hop :])
    wave, envelope = total[:, :, : frames * hop].unbind(1)
    return wave / envelope.clamp(min=torch.finfo(torch.float32).tiny)


def update(old: Tensor, active: Tensor | None, new: Tensor) -> None:
    """Writes the rows of `new` [B, ..] where `active` [B] bool (None: all), in place; others stay."""
    old.copy_(new if active is None else torch.where(active.view(-1, *[1] * (old.dim() - 1)), new, old))
