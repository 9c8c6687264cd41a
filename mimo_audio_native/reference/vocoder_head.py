"""Definition of the vocoder's output head in plain torch: magnitude and phase to waveform.

MiMo-Audio report, section 2.1 (Vocos): the network predicts log-magnitude and phase, an inverse STFT makes the wave.
"""

from itertools import pairwise

import torch
from torch import Tensor

from mimo_audio_native.reference.stft import istft


def vocoder_head(
    x: Tensor, window: Tensor, hop: int, cu_seqlens: Tensor | None = None, max_magnitude: float = 100.0
) -> Tensor:
    """Waveforms of packed sequences, each on its own.

    x [T, n_fft + 2]: log-magnitudes of the n_fft / 2 + 1 bins, then their phases in radians; window [n_fft];
    cu_seqlens [B + 1] int32: sequence b is rows cu_seqlens[b] .. cu_seqlens[b + 1] (None: one sequence).
    -> wave [T * hop]; sequence b is samples cu_seqlens[b] * hop .. cu_seqlens[b + 1] * hop.
    """
    log_magnitude, phase = x.chunk(2, -1)
    spectrum = torch.polar(log_magnitude.exp().clamp(max=max_magnitude), phase)
    bounds = [0, len(x)] if cu_seqlens is None else cu_seqlens.tolist()
    pieces = [istft(spectrum[None, a:b], window, hop)[0] for a, b in pairwise(bounds)]
    return torch.cat(pieces) if pieces else x.new_zeros(0)
