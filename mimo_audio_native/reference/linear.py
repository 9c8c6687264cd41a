"""Definition of linear: products of rows with a weight (report, section 2.2)."""

import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [B, K], weight [N, K] -> [B, N]; see ``mimo_audio_native``."""
    return F.linear(x, weight, bias)
