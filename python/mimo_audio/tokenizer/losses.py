"""What the tokenizer's reconstruction is trained on (MiMo-Audio report, section 2.1, and additions for small models).

The paper's own loss is the multi-scale mel. It does not see the phase: a small vocoder trained on it alone repeats the
same phase in every frame, which hums at the frame rate, and hardly learns harmonics. The other losses look at what
it misses: the decoder's output as a mel, the predicted spectrum against the true one, and the wave's fine spectrum at a
hop other than the vocoder's.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import mimo_audio_native as mn

MEL_FLOOR = 1e-3
SPECTRUM_FLOOR = 1e-2  # of the unnormalised STFT: 88 dB below a full-scale tone


def normalised_hann(width: int) -> Tensor:
    """Periodic Hann window [width] of unit energy: the "normalised STFT" of the paper."""
    window = torch.hann_window(width, dtype=torch.float32)
    return window / window.square().sum().sqrt()


def emphasis(n_fft: int, sample_rate: int) -> Tensor:
    """Weights [n_fft / 2 + 1] of mean 1: a bin counts by its width on the mel scale.

    The harmonics that carry the pitch lie low; fine structure higher up is mostly noise, which nothing can predict.
    """
    frequency = torch.arange(n_fft // 2 + 1, dtype=torch.float32) * sample_rate / n_fft
    weight = 1 / (700 + frequency)
    return weight / weight.mean()


class MultiScaleMelLoss(nn.Module):
    """Sum over scales i of the mean L1 between log-mels: 2^i bands, Hann window 15 * 2^(i-1), hop 15 * 2^(i-2) samples.

    Equation 2, with the natural logarithm and a mean over frames and bands: so a step's weight does not depend on how
    long its crops are (docs/training.md lists what differs from the report).
    """

    def __init__(self, sample_rate: int, scales: Sequence[int] = (5, 6, 7)) -> None:
        super().__init__()
        self.scales = tuple(scales)
        for i in self.scales:
            width = 15 * 2 ** (i - 1)
            self.register_buffer(f"window{i}", normalised_hann(width), persistent=False)
            bank = mn.mel_filterbank(sample_rate, width, 2**i, 0.0, sample_rate / 2)
            self.register_buffer(f"filterbank{i}", bank, persistent=False)

    def forward(self, wave: Tensor, target: Tensor) -> Tensor:
        """wave, target [B, L] -> scalar; zero for identical waves."""
        total = wave.new_zeros(())
        for i in self.scales:
            tables = (
                getattr(self, f"window{i}"),
                getattr(self, f"filterbank{i}"),
                15 * 2 ** (i - 2),
                MEL_FLOOR,
                "same",
            )
            total = total + (mn.log_mel(wave, *tables) - mn.log_mel(target, *tables)).abs().mean()
        return total


class WaveSpectrumLoss(nn.Module):
    """Mean L1 between log-magnitudes of the two waves' STFT at window 720, hop 180: are neighbouring frames consistent?

    A synthesis whose frames contradict each other has the right magnitudes at its own hop, and cancels in between.
    """

    window: Tensor
    emphasis: Tensor

    def __init__(self, sample_rate: int, window: int = 720, hop: int = 180, n_fft: int = 1024) -> None:
        super().__init__()
        self.hop, self.n_fft = hop, n_fft
        self.register_buffer("window", torch.hann_window(window, dtype=torch.float32), persistent=False)
        self.register_buffer("emphasis", emphasis(n_fft, sample_rate), persistent=False)

    def forward(self, wave: Tensor, target: Tensor) -> Tensor:
        """wave, target [B, L] -> scalar."""
        a, b = (self._log_magnitude(x) for x in (wave, target))
        return ((a - b).abs() * self.emphasis).mean()

    def _log_magnitude(self, wave: Tensor) -> Tensor:
        power = torch.view_as_real(mn.stft(wave, self.window, self.n_fft, self.hop, "same")).square().sum(-1)
        return 0.5 * (power + SPECTRUM_FLOOR**2).log()


def coarse_mel_loss(coarse: Tensor, log_mel: Tensor) -> Tensor:
    """Mean L1 between the decoder's output and the mel it was encoded from, both [B, T, n_mels]; scalar.

    The decoder ends in a group norm over channels and time, so the target is normalised likewise. Gives encoder and
    decoder a short way to learn harmonics, and the vocoder an input in which they can be seen.
    """
    target = log_mel.clamp(min=math.log(SPECTRUM_FLOOR))
    target = (target - target.mean((1, 2), keepdim=True)) / target.std((1, 2), keepdim=True).clamp(min=1e-3)
    return (coarse - target).abs().mean()


def wrapped_distance(angle: Tensor) -> Tensor:
    """Absolute value of an angle (radians) after taking it to -pi .. pi."""
    return (angle - 2 * math.pi * torch.round(angle / (2 * math.pi))).abs()


class SpectrumLoss(nn.Module):
    """The vocoder's predicted spectrum against the STFT of the true wave.

    Magnitude: mean L1 of log-magnitudes, floored in the target. Phase: at one point it is
    arbitrary, its differences are not: anti-wrapped L1 of those from frame to frame (instantaneous frequency) and from
    bin to bin (group delay), weighted by the square root of the true magnitude.
    """

    window: Tensor
    emphasis: Tensor

    def __init__(self, sample_rate: int, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft, dtype=torch.float32), persistent=False)
        self.register_buffer("emphasis", emphasis(n_fft, sample_rate), persistent=False)

    def forward(self, log_magnitude: Tensor, phase: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """log_magnitude, phase [B, T, n_fft / 2 + 1], target wave [B, T * hop] -> magnitude loss, phase loss."""
        spectrum = mn.stft(target, self.window, self.n_fft, self.hop, "same")
        magnitude = spectrum.abs()
        magnitude_loss = ((log_magnitude - magnitude.clamp(min=SPECTRUM_FLOOR).log()).abs() * self.emphasis).mean()
        weight = magnitude.sqrt()
        error = phase - spectrum.angle()
        over_time = wrapped_distance(error.diff(dim=1)) * weight[:, 1:]
        over_bins = wrapped_distance(error.diff(dim=2)) * weight[:, :, 1:]
        phase_loss = (over_time.mean() + over_bins.mean()) / weight.mean().clamp(min=1e-6)
        return magnitude_loss, phase_loss
