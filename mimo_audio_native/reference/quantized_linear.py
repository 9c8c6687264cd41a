"""Definition of quantised weights and of products with them: integers of 8 or 4 bits and their scales.

A weight matrix [N, K] is scale * number: "int8" has one float32 scale per row and numbers from -127 to 127, "int4" one
bfloat16 scale per `group` neighbours of a row and numbers from -8 to 7, where -8 is the one of largest magnitude. In a
product the activations are quantised as well, row by row: 32 neighbours share a scale, their largest magnitude is 127.

How the numbers lie in the uint8 matrix of ``quantize_weight`` is what csrc/include/mimo/weight_format.h says.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PANEL_ROWS, ACTIVATION_GROUP = 16, 32
GROUPS = (32, 128)  # of int4


def quantize_weight(weight: Tensor, bits: int, group: int = 32) -> Tensor:
    """weight [N, K] -> uint8 [N, bytes per row]; see ``mimo_audio_native``."""
    numbers, scales = quantized_numbers(weight, bits, group)
    if bits == 8:
        lines = (numbers + 128).to(torch.uint8).unflatten(1, (-1, 4))
        scale_bytes = scales.view(torch.uint8).unflatten(1, (-1, 4))
    else:
        halves = (numbers + 8).to(torch.uint8).unflatten(1, (-1, 2, 4))
        lines = halves[:, :, 0] | halves[:, :, 1] << 4
        scale_bytes = scales.bfloat16().view(torch.uint8).unflatten(1, (-1, 2))
    return torch.cat([_pack(scale_bytes[rows], lines[rows]) for rows in _panels(len(weight))])


def dequantize_weight(packed: Tensor, columns: int) -> Tensor:
    """uint8 [N, bytes per row] of ``quantize_weight`` -> float32 [N, columns]."""
    return torch.cat([_unpack(packed[rows], columns) for rows in _panels(len(packed))])


def quantized_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [.., K] -> [.., N]; see ``mimo_audio_native``."""
    y = quantized_rows(x) @ dequantize_weight(weight, x.shape[-1]).T
    return (y if bias is None else y + bias.float()).to(x.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, or `quantized_linear` where the weight is uint8."""
    return (quantized_linear if weight.dtype == torch.uint8 else F.linear)(x, weight, bias)


def quantized_rows(x: Tensor) -> Tensor:
    """What products make of activations [.., K]: float32, where every group of 32 has 255 values.

    A group with a number that is not finite is NaN.
    """
    groups = x.float().unflatten(-1, (-1, ACTIVATION_GROUP))
    most = groups.abs().amax(-1, keepdim=True)
    scales = torch.where(most.isfinite(), most / 127, torch.nan)
    return ((groups * torch.where(most > 0, 127 / most, 0)).round() * scales).flatten(-2)


def quantized_numbers(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """weight [N, K] -> numbers [N, K], integers in float32, and scales float32 [N, 1] or [N, K / group]."""
    grouped = weight.float().unflatten(1, (-1, weight.shape[1] if bits == 8 else group))
    if bits == 8:
        scales = grouped.abs().amax(2, keepdim=True) / 127
    else:
        largest = grouped.gather(2, grouped.abs().argmax(2, keepdim=True))
        scales = (largest / -8).bfloat16().float()
    numbers = torch.where(scales == 0, 0, grouped / scales).round()
    return (numbers.clamp(-127, 127) if bits == 8 else numbers.clamp(-8, 7)).flatten(1), scales.squeeze(2)


def _panels(rows: int) -> list[slice]:
    """The rows of whole panels, and the rest."""
    whole = rows // PANEL_ROWS * PANEL_ROWS
    return [slice(whole)] * (whole > 0 or rows == 0) + [slice(whole, rows)] * (rows > whole)


def _pack(scales: Tensor, lines: Tensor) -> Tensor:
    """Bytes [N, scales, 2 or 4] and [N, lines, 4] of rows that fill their panels -> [N, bytes per row]."""
    height = min(len(lines), PANEL_ROWS) or 1
    panels = [part.unflatten(0, (-1, height)).transpose(1, 2).flatten(1) for part in (scales, lines)]
    return torch.cat(panels, 1).view(len(lines), -1)


def _unpack(packed: Tensor, columns: int) -> Tensor:
    """Rows [N, bytes per row] that fill their panels -> float32 [N, columns]."""
    int8 = packed.shape[1] > columns
    height = min(len(packed), PANEL_ROWS) or 1
    panels = packed.reshape(len(packed) // height, -1)
    split = height * (packed.shape[1] - (columns if int8 else columns // 2))
    scales, lines = (part.contiguous() for part in (panels[:, :split], panels[:, split:]))
    scales = scales.view(torch.float32 if int8 else torch.bfloat16).float().unflatten(1, (-1, height)).transpose(1, 2)
    lines = lines.unflatten(1, (-1, height, 4)).transpose(1, 2)
    numbers = (lines.float() - 128 if int8 else torch.stack([lines & 15, lines >> 4], 3).float() - 8).flatten(2)
    return (numbers.unflatten(2, (scales.shape[2], -1)) * scales.unsqueeze(3)).view(len(packed), columns)
