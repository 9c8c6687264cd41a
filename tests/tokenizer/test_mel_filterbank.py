"""The mel filter bank: triangles on the HTK scale."""

import pytest
import torch

import mimo_audio_native as mn


def hertz(mel: float) -> float:
    return 700 * (10 ** (mel / 2595) - 1)


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "low", "high"), [(24000, 960, 40, 0, None), (16000, 512, 10, 80, 7600)]
)
def test_triangles(rate, n_fft, n_mels, low, high):
    bank = mn.mel_filterbank(rate, n_fft, n_mels, low, high).double()
    assert bank.shape == (n_fft // 2 + 1, n_mels)
    scale = [2595 * torch.log10(torch.tensor(1 + f / 700, dtype=torch.float64)).item() for f in (low, high or rate / 2)]
    step = (scale[1] - scale[0]) / (n_mels + 1)
    for band in range(n_mels):
        left, peak, right = (hertz(scale[0] + (band + i) * step) for i in range(3))
        for bin_ in range(n_fft // 2 + 1):
            f = bin_ * rate / n_fft
            inside = min((f - left) / (peak - left), (right - f) / (right - peak))
            assert bank[bin_, band].item() == pytest.approx(max(0.0, inside), abs=1e-4)


def test_bad_limits():
    with pytest.raises(ValueError, match=r"f_min < f_max, got 9000 and 8000"):
        mn.mel_filterbank(24000, 960, 80, 9000, 8000)
    with pytest.raises(ValueError, match=r"n_mels: expected at least 1, got 0"):
        mn.mel_filterbank(24000, 960, 0)
    for n_fft in (0, -4, 961):
        with pytest.raises(ValueError, match=f"n_fft: expected an even number from 2 on, got {n_fft}"):
            mn.mel_filterbank(24000, n_fft, 80)
