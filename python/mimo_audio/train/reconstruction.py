"""What both stages of the tokenizer share: a micro-batch's mels, its quantization, the losses of its resynthesis."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

import mimo_audio_native as mn
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.losses import MultiScaleMelLoss, SpectrumLoss, WaveSpectrumLoss, coarse_mel_loss
from mimo_audio.tokenizer.mel import FLOOR
from mimo_audio.train.recipe import LossWeights, Training, TrainingError

ADVERSARIAL = ("adversarial", "feature_matching")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """bfloat16 matrix products where the recipe asks for them; "float32" suspends that. Nothing on the meta device."""
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def seeded(*numbers: int) -> torch.Generator:
    """A generator that depends on all the numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def levels(training: Training, step: int, num_quantizers: int) -> int:
    """How many codebooks the step uses: all, or for a share of the steps any smaller number."""
    generator = seeded(training.seed, step)
    if (
        num_quantizers > 1
        and torch.rand((), generator=generator, device="cpu", dtype=torch.float32) < training.quantizer_dropout
    ):
        return int(torch.randint(1, num_quantizers, (), generator=generator))
    return num_quantizers


@contextmanager
def finite(step: int, features: Tensor) -> Iterator[None]:
    """Raises TrainingError where the block cannot quantize features that are not finite; looks only if it fails."""
    try:
        yield
    except RuntimeError as error:
        if features.isfinite().all():
            raise
        raise TrainingError(
            f"step {step}: the encoder's features are not finite; the last checkpoint is intact"
        ) from error


def weighted_sum(losses: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The loss to descend."""
    return torch.stack([getattr(weights, name) * value for name, value in losses.items()]).sum()


class Reconstruction(nn.Module):
    """Resynthesis of crops and its losses; holds their tables, and no weights."""

    def __init__(self, model: AudioTokenizer) -> None:
        super().__init__()
        config = model.config
        self.frame = config.stride_size * config.avg_pooler  # mel frames of one codec frame
        self.mel_loss = MultiScaleMelLoss(config.sampling_rate)
        self.wave_loss = WaveSpectrumLoss(config.sampling_rate)
        self.spectrum_loss = SpectrumLoss(config.sampling_rate, config.nfft, config.hop_length)

    def log_mel(self, model: AudioTokenizer, wave: Tensor) -> Tensor:
        """wave [B, N] of whole codec frames -> log-mel [B, N / hop, n_mels]."""
        front = model.mel
        mel = mn.log_mel(wave, front.window, front.filterbank, front.hop, FLOOR, "center")
        return mel[:, : wave.shape[1] // front.hop]

    def forward(
        self, model: AudioTokenizer, quantized: Tensor, wave: Tensor, mel: Tensor, weights: LossWeights
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Packed quantized [B * crop, d_model], wave [B, N] and its mel -> losses, decoded wave [B, N].

        Without weights that need it, the wave is not synthesised, and empty.
        """
        batch, frames = len(wave), [mel.shape[1]] * len(wave)
        coarse = model.decoder(quantized, [n // self.frame for n in frames])
        log_magnitude, phase = model.vocoder.spectrum(coarse, frames)
        with autocast(wave.device, "float32"):
            losses = {"coarse": coarse_mel_loss(coarse.float().unflatten(0, (batch, -1)), mel)}
            losses["magnitude"], losses["phase"] = self.spectrum_loss(
                log_magnitude.unflatten(0, (batch, -1)), phase.unflatten(0, (batch, -1)), wave
            )
            decoded = wave.new_empty(batch, 0)
            if any(getattr(weights, name) for name in ("mel", "wave", *ADVERSARIAL)):
                decoded = model.vocoder.synthesize(log_magnitude, phase, frames).view(batch, -1)
                losses["mel"], losses["wave"] = self.mel_loss(decoded, wave), self.wave_loss(decoded, wave)
        return losses, decoded
