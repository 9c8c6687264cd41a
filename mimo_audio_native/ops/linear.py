"""Products of a few rows with a weight that do not depend on their batch (MiMo-Audio report, section 2.2)."""

import torch
from torch import Tensor

from mimo_audio_native.ops.register import register_fake


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times the weight's rows, plus the bias: ``torch.nn.functional.linear`` for requests that share a batch.

    The weight is read once for all rows; meant for the rows of a decode step, not for thousands.

    Args:
        x: [B, K], float32, bfloat16 or float16; at most 65535 rows.
        weight: [N, K] in x's dtype.
        bias: [N] in x's dtype, or None.

    Returns:
        [B, N] in x's dtype, rounded once from float32 sums. A row's result depends neither on the other rows nor on
        threads. Not differentiable.

    Raises:
        RuntimeError: wrong shapes, dtypes or devices.

    Equivalent to ``F.linear(x, weight, bias)``.
    """
    return torch.ops.mimo.linear(x, weight, bias)


@register_fake("mimo::linear")
def _(x, weight, bias=None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]))
