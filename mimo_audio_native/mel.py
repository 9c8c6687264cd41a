"""Mel filter bank in plain torch: the matrix that `log_mel` weighs spectra with."""

import math

import torch
from torch import Tensor


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None) -> Tensor:
    """Triangular filters, evenly spaced on the HTK mel scale 2595 log10(1 + f / 700), peak 1, not area-normalised.

    Frequencies in Hz; f_max None means sample_rate / 2. -> [n_fft // 2 + 1, n_mels] float32. Raises ValueError unless
    0 <= f_min < f_max, n_mels >= 1 and n_fft is even and positive. The arithmetic is float32 because the released
    tokenizer's is: with float64 the filters move by 1e-5.
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < f_max:
        raise ValueError(f"f_min and f_max: expected 0 <= f_min < f_max, got {f_min} and {f_max}")
    if n_fft < 2 or n_fft % 2:
        raise ValueError(f"n_fft: expected an even number from 2 on, got {n_fft}")
    if n_mels < 1:
        raise ValueError(f"n_mels: expected at least 1, got {n_mels}")
    lowest, highest = (2595 * math.log10(1 + f / 700) for f in (f_min, f_max))
    corners = 700 * (10 ** (torch.linspace(lowest, highest, n_mels + 2, dtype=torch.float32) / 2595) - 1)
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float32)
    distance = corners - bins[:, None]  # [bins, n_mels + 2]
    width = corners.diff()
    rising, falling = -distance[:, :-2] / width[:-1], distance[:, 2:] / width[1:]
    return torch.minimum(rising, falling).clamp(min=0)
