"""The discriminators of the adversarial stage (MiMo-Audio report, section 2.1): multi-period and multi-scale STFT.

Each sub-discriminator gives a score per place of the wave and its hidden activations, for feature matching. Every
layer's weight is divided by its largest singular value (spectral norm), which `iterate_norms` follows as training moves
the weights: once per step, so that the number of passes in a step changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import mimo_audio_native as mn
from mimo_audio.files.schema import Size
from mimo_audio.tokenizer.losses import normalised_hann

Output = tuple[Tensor, list[Tensor]]  # scores of any shape, activations of the hidden layers


@dataclass(frozen=True, kw_only=True)
class DiscriminatorShape:
    """periods in samples, with the channels of their hidden layers; windows in samples, with channels of all layers."""

    periods: tuple[Size, ...]
    period_channels: tuple[Size, ...]
    windows: tuple[Size, ...]
    window_channels: Size


class PeriodDiscriminator(nn.Module):
    """The wave folded into rows of `period` samples; convolutions run down the columns (MPD of HiFi-GAN)."""

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        strides = [3] * (len(channels) - 1) + [1]
        inputs = [1, *channels[:-1]]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, (5, 1), (stride, 1), (2, 0)))
            for before, after, stride in zip(inputs, channels, strides, strict=True)
        )
        self.score = spectral_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> Output:
        """wave [B, L] -> scores, activations."""
        x = F.pad(wave[:, None], (0, -wave.shape[1] % self.period), "reflect").unflatten(2, (-1, self.period))
        activations = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            activations.append(x)
        return self.score(x), activations


class STFTDiscriminator(nn.Module):
    """2-D convolutions over real and imaginary parts of a normalised STFT, hop a quarter of it (MS-STFT, EnCodec)."""

    window: Tensor

    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("window", normalised_hann(window), persistent=False)
        self.layers = nn.ModuleList([spectral_norm(nn.Conv2d(2, channels, (3, 9), padding=(1, 4)))])
        for dilation in (1, 2, 4):  # in time; the frequencies are halved
            layer = nn.Conv2d(channels, channels, (3, 9), (1, 2), (dilation, 4), (dilation, 1))
            self.layers.append(spectral_norm(layer))
        self.layers.append(spectral_norm(nn.Conv2d(channels, channels, 3, padding=1)))
        self.score = spectral_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> Output:
        """wave [B, L] -> scores, activations."""
        size = len(self.window)
        spectrum = torch.view_as_real(mn.stft(wave.float(), self.window, size, size // 4, "center"))
        x = spectrum.permute(0, 3, 1, 2)  # [B, 2, T, bins]
        activations = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            activations.append(x)
        return self.score(x), activations


class Discriminators(nn.Module):
    """All sub-discriminators."""

    def __init__(self, shape: DiscriminatorShape) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            PeriodDiscriminator(period, shape.period_channels) for period in shape.periods
        )
        self.discriminators.extend(STFTDiscriminator(window, shape.window_channels) for window in shape.windows)
        self.eval()  # where a spectral norm does not iterate by itself

    def forward(self, wave: Tensor) -> list[Output]:
        """wave [B, L] -> a judgement per sub-discriminator."""
        return [discriminator(wave) for discriminator in self.discriminators]

    @torch.no_grad()
    def iterate_norms(self) -> None:
        """One power iteration of every layer's spectral norm."""
        self.train()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _ = module.weight
        self.eval()


def discriminator_loss(real: Sequence[Output], fake: Sequence[Output]) -> Tensor:
    """Hinge: real scores should exceed 1, fake ones fall below -1; mean over the sub-discriminators (eq. 4)."""
    losses = [
        F.relu(1 - true).float().mean() + F.relu(1 + false).float().mean()
        for (true, _), (false, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def adversarial_loss(fake: Sequence[Output]) -> Tensor:
    """The generator's side: minus the fake scores, mean over the sub-discriminators (eq. 5).

    Every score pulls equally, however high or low it is.
    """
    return -torch.stack([score.float().mean() for score, _ in fake]).mean()


def feature_matching_loss(real: Sequence[Output], fake: Sequence[Output]) -> Tensor:
    """L1 of fake activations to real ones (taken as constants); mean over sub-discriminators and their layers."""
    losses = [
        torch.stack([_distance(b, a.detach()) for a, b in zip(true, false, strict=True)]).mean()
        for (_, true), (_, false) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean L1, summed in float32; unlike F.l1_loss it makes no float32 copies of activations, which are large."""
    return torch.linalg.vector_norm(a - b, 1, dtype=torch.float32) / a.numel()
