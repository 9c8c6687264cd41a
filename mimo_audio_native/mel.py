"""Mel filter bank in plain torch: the matrix that `log_mel` weighs spectra with."""

import torch
from torch import Tensor


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None) -> Tensor:
    """Triangular filters, evenly spaced on the HTK mel scale 2595 log10(1 + f / 700), peak 1, not area-normalised.

    Frequencies in Hz; f_max None means sample_rate / 2. -> [n_fft // 2 + 1, n_mels] float32 (computed in float64).
    Raises ValueError unless 0 <= f_min < f_max and n_mels >= 1.
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < f_max:
        raise ValueError(f"f_min and f_max: expected 0 <= f_min < f_max, got {f_min} and {f_max}")
    if n_mels < 1:
        raise ValueError(f"n_mels: expected at least 1, got {n_mels}")
    limits = 2595 * torch.tensor([1 + f_min / 700, 1 + f_max / 700], dtype=torch.float64).log10()
    mels = limits[0] + (limits[1] - limits[0]) * torch.arange(n_mels + 2, dtype=torch.float64) / (n_mels + 1)
    corners = 700 * (10 ** (mels / 2595) - 1)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * sample_rate / n_fft
    widths = corners.diff()
    rising = (bins - corners[:-2]) / widths[:-1]
    falling = (corners[2:] - bins) / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0).float()
