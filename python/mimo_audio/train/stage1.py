"""Stage 1: a unified representation, from scratch or from another tokenizer (MiMo-Audio report, section 2.1).

Reconstruction of crops, commitment to the codebooks, and where the recipe asks for it text from whole recordings, which
pass through encoder and codebooks in the same packed batch.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train import codebooks
from mimo_audio.train.audio_data import AudioData, Batch
from mimo_audio.train.processes import Processes
from mimo_audio.train.recipe import Recipe, Stage1
from mimo_audio.train.reconstruction import Reconstruction, autocast, finite, levels, seeded, weighted_sum
from mimo_audio.train.starting_point import initialise, make_optimizers, read_start
from mimo_audio.train.text_reader import TextReader

KMEANS_BATCHES = 24  # whose features start the codebooks


class ReconstructionStage:
    """The weights that stage 1 trains, and what one step does to them."""

    def __init__(
        self,
        recipe: Recipe,
        training: Stage1,
        data: AudioData | None,
        processes: Processes,
        start: str | Path | None = None,
    ) -> None:
        torch.manual_seed(training.seed)
        self.training, self.data, self.processes = training, data, processes
        self.model = AudioTokenizer(recipe.model) if start is None else read_start(recipe, start).train()
        self.reader = (
            TextReader(recipe.model.d_model, training.audio_to_text) if training.audio_to_text else nn.Identity()
        )
        if start is None and processes.device.type != "meta":
            initialise(self.model)
        self.model.to(processes.device)
        self.reader.to(processes.device)
        self.reconstruction = Reconstruction(self.model).to(processes.device)
        self.parameter_groups: Sequence[Sequence[nn.Parameter]] = [
            [*self.model.parameters(), *self.reader.parameters()]
        ]
        self.optimizers = make_optimizers(
            nn.ModuleList([self.model, self.reader]), training.learning_rate, training.weight_decay
        )
        self.seen: tuple[Tensor, Tensor] | None = None  # features and codes of this process's first micro-batch
        self.usage: list[Tensor] = []  # counts and sums over the micro-batches

    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds besides the running average."""
        return {"model": self.model, "reader": self.reader}

    def begin(self, step: int) -> None:
        """k-means on the features of this and the next steps' first micro-batches, when new codebooks start."""
        self.seen, self.usage = None, []
        if self.training.start is not None or step != self.training.unquantized:
            return
        quantizer = self.model.quantizer
        if self.processes.rank == 0:
            assert self.data is not None
            features = []
            for i in range(KMEANS_BATCHES):
                crops = self.data(step + i).crops.to(self.processes.device)
                with torch.no_grad(), autocast(self.processes.device, self.training.precision):
                    features.append(self.encode(self.reconstruction.log_mel(self.model, crops), [])[0])
            codebooks.start(quantizer, torch.cat(features), seeded(self.training.seed, step))
        self.processes.copy_from_first(quantizer.buffers())

    def encode(self, mel: Tensor, utterances: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Mels of crops [B, T, n_mels] and of whole recordings [T_i, n_mels] -> packed features, lengths in vectors."""
        frames = [mel.shape[1]] * len(mel) + [len(one) for one in utterances]
        features = self.model.encoder(torch.cat([mel.flatten(0, 1), *utterances]), frames)
        return features, [n // self.reconstruction.frame for n in frames]

    def backward(self, step: int, micro_batch: int, batch: Batch, share: float) -> dict[str, Tensor]:
        """Adds the micro-batch's gradient, times `share`, and returns its losses."""
        training, weights, wave = self.training, self.training.weights_at(step), batch.crops
        mel = self.reconstruction.log_mel(self.model, wave)
        utterances = [self.reconstruction.log_mel(self.model, one[None])[0] for one in batch.utterances]
        losses: dict[str, Tensor] = {}
        with autocast(self.processes.device, training.precision):
            features, lengths = self.encode(mel, utterances)
            rows = len(wave) * training.crop
            quantized = features.float()
            if step >= training.unquantized:
                count = levels(training, step, self.model.config.num_quantizers)
                with finite(step, features):
                    quantized, codes, commitments, *usage = self.model.quantizer(features, count)
                losses["commitment"] = commitments.mean()
                self.seen = self.seen or (features[:rows].detach(), codes[:, :rows])
                self.usage = [a + b for a, b in zip(self.usage, usage, strict=True)] if self.usage else usage
            if batch.utterances:
                losses["audio_to_text"] = self.reader(quantized[rows:], lengths[len(wave) :], batch.texts)
            decoder_input = quantized[:rows]
            if step >= training.unquantized:
                # What the codebooks do not resolve yet, a decoder that only sees codes never asks the encoder for.
                generator = seeded(training.seed, step, micro_batch)
                draws = torch.rand(len(wave), generator=generator, device="cpu", dtype=torch.float32)
                bypass = draws < training.bypass
                chosen = bypass.repeat_interleave(training.crop)[:, None].to(wave.device)
                decoder_input = torch.where(chosen, features[:rows].float(), decoder_input)
            reconstruction, _ = self.reconstruction(self.model, decoder_input, wave, mel, weights)
        losses |= reconstruction
        losses["loss"] = weighted_sum(losses, weights)
        (losses["loss"] * share).backward()
        return {name: value.detach() for name, value in losses.items()}

    def finish(self, step: int) -> dict[str, float]:
        """Moves the codebooks, equally in every process; entries revive as residuals of the first micro-batch."""
        if self.seen is None:
            return {}
        counts, sums = (self.processes.sum(total) for total in self.usage)
        features, codes = (tensor.contiguous() for tensor in self.seen)
        self.processes.copy_from_first((features, codes))
        generator = seeded(self.training.seed, step)
        return {"revived": codebooks.update(self.model.quantizer, features, codes, counts, sums, generator)}
