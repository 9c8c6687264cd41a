"""Stage 2: decoder and vocoder against discriminators, encoder and codebooks frozen (MiMo-Audio report, section 2.1).

Generator and discriminators move at once: a micro-batch's synthesis is scored once for either, by the discriminators as
they were before the step, which saves the second synthesis and pass of taking turns and lets a step have many
micro-batches. Both waves are scored at the loudness where the true crop has unit power: under a spectral norm, which
bounds what a layer can amplify, quiet waves would be all but equal to every discriminator (after 36 steps from the nano
tokenizer the discriminators' loss was 1.57 this way, 2.02 without).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.discriminators import (
    Discriminators,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from mimo_audio.train.audio_data import Batch
from mimo_audio.train.processes import Processes
from mimo_audio.train.recipe import Stage2
from mimo_audio.train.reconstruction import ADVERSARIAL, Reconstruction, autocast, finite, levels, weighted_sum
from mimo_audio.train.starting_point import make_optimizers

QUIETEST = 1e-2  # effective amplitude of a crop below which it counts as silence


class AdversarialStage:
    """The weights that stage 2 trains, and what one step does to them."""

    def __init__(self, model: AudioTokenizer, training: Stage2, processes: Processes) -> None:
        torch.manual_seed(training.seed)
        self.training, self.processes = training, processes
        self.model = model.train().to(processes.device)
        self.discriminators = Discriminators(training.discriminators).to(processes.device)
        self.reconstruction = Reconstruction(model).to(processes.device)
        model.encoder.requires_grad_(False)  # the codebooks live there too, and have no gradients anyway
        generator = list(model.decoder.parameters())
        self.parameter_groups: Sequence[Sequence[nn.Parameter]] = [generator, list(self.discriminators.parameters())]
        self.optimizers = [
            *make_optimizers(model.decoder, training.learning_rate, training.weight_decay),
            torch.optim.AdamW(
                self.parameter_groups[1], training.discriminator_learning_rate, betas=(0.5, 0.9), weight_decay=0.0
            ),
        ]

    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds besides the running average."""
        return {"model": self.model, "discriminators": self.discriminators}

    def begin(self, step: int) -> None:
        """Nothing to prepare."""

    def backward(self, step: int, micro_batch: int, batch: Batch, share: float) -> dict[str, Tensor]:
        """Adds the micro-batch's gradients of generator and discriminators, times `share`, and returns its losses."""
        training, weights, wave, model = self.training, self.training.weights_at(step), batch.crops, self.model
        mel = self.reconstruction.log_mel(model, wave)
        with autocast(self.processes.device, training.precision):
            with torch.no_grad():
                features = model.encoder(mel.flatten(0, 1), [mel.shape[1]] * len(mel))
                count = levels(training, step, model.config.num_quantizers)
                with finite(step, features):
                    quantized = model.quantizer.decode(model.quantizer.encode(features, count))
            losses, decoded = self.reconstruction(model, quantized, wave, mel, weights)
            scored: dict[str, Tensor] = {}
            if any(getattr(weights, name) for name in ADVERSARIAL):
                gain = 1 / wave.square().mean(1, keepdim=True).sqrt().clamp(min=QUIETEST)
                real, fake = self.discriminators(gain * wave), self.discriminators(gain * decoded)
                scored["discriminator"] = discriminator_loss(real, fake)
                (scored["discriminator"] * share).backward(inputs=self.parameter_groups[1], retain_graph=True)
                losses["adversarial"] = adversarial_loss(fake)
                losses["feature_matching"] = feature_matching_loss(real, fake)
        losses["loss"] = weighted_sum(losses, weights)
        (losses["loss"] * share).backward(inputs=self.parameter_groups[0])
        return {name: value.detach() for name, value in (losses | scored).items()}

    def finish(self, step: int) -> dict[str, float]:
        """Lets the spectral norms follow the weights."""
        self.discriminators.iterate_norms()
        return {}
