"""Trains the tokenizer's reconstruction (stage 1 of the MiMo-Audio report, section 2.1, without its text objective).

    python -m mimo_audio.train.tokenizer --config recipes/tokenizer-nano.json --out runs/nano [--resume]

The output folder gets log.jsonl, checkpoint.safetensors (everything needed to continue exactly) and model/, the running
average of the weights as a folder that AudioTokenizer.from_pretrained reads. Ctrl-C saves and stops.
"""

import argparse
import copy
import json
import math
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio.errors import MimoError
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.losses import MultiScaleMelLoss, SpectrumLoss, WaveSpectrumLoss, coarse_mel_loss
from mimo_audio.tokenizer.mel import FLOOR
from mimo_audio.tokenizer.transformer import TransformerLayer
from mimo_audio.train import checkpoint, codebooks
from mimo_audio.train.audio_data import RandomCrops
from mimo_audio.train.recipe import Recipe, RecipeError

KMEANS_BATCHES = 24  # whose features start the codebooks
TYPICAL_LOG_MEL, LOG_MEL_SPREAD = -6.0, 4.0  # of speech


class Trainer:
    """Model, optimizers and data of one run; `step(n)` depends on the recipe and the state after step n - 1 alone."""

    def __init__(self, recipe: Recipe) -> None:
        config, training = recipe.model, recipe.training
        torch.manual_seed(training.seed)
        self.recipe = recipe
        self.model = AudioTokenizer(config)
        initialise(self.model)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.frame = config.stride_size * config.avg_pooler  # mel frames of one codec frame
        samples = training.crop * self.frame * config.hop_length
        self.data = RandomCrops(recipe.data, config.sampling_rate, samples, training.batch, training.seed)
        self.mel_loss = MultiScaleMelLoss(config.sampling_rate)
        self.wave_loss = WaveSpectrumLoss(config.sampling_rate)
        self.spectrum_loss = SpectrumLoss(config.sampling_rate, config.nfft, config.hop_length)
        self.optimizers = make_optimizers(self.model, training.learning_rate, training.weight_decay)

    def log_mel(self, wave: Tensor) -> Tensor:
        """wave [B, crop samples] -> log-mel [B, T, n_mels], a whole number of codec frames."""
        front = self.model.mel
        mel = mn.log_mel(wave, front.window, front.filterbank, front.hop, FLOOR, "center")
        return mel[:, : self.recipe.training.crop * self.frame]

    def features(self, mel: Tensor) -> Tensor:
        """log-mel [B, T, n_mels] -> packed encoder output [B * crop, d_model]."""
        return self.model.encoder(mel.flatten(0, 1), [mel.shape[1]] * len(mel))

    def start_codebooks(self, step: int, generator: torch.Generator) -> None:
        """k-means on the features of this step's batch and the following ones."""
        with torch.no_grad(), self.autocast():
            features = [self.features(self.log_mel(self.data(step + i))) for i in range(KMEANS_BATCHES)]
        codebooks.start(self.model.quantizer, torch.cat(features), generator)
        self.average.quantizer.load_state_dict(self.model.quantizer.state_dict())

    def autocast(self) -> torch.autocast:
        """bfloat16 matrix products where the recipe asks for them; losses and synthesis stay float32."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.training.precision == "bfloat16")

    def step(self, step: int) -> dict[str, float]:
        """One optimizer step; returns the losses. If the loss is not finite: RecipeError, and nothing has changed."""
        training, weights, model = self.recipe.training, self.recipe.training.weights_at(step), self.model
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        if step == training.unquantized:
            self.start_codebooks(step, generator)
        wave = self.data(step)
        batch, vectors = len(wave), [training.crop] * len(wave)
        frames = [n * self.frame for n in vectors]

        mel = self.log_mel(wave)
        with self.autocast():
            features = self.features(mel)
            quantized, commitment = features, features.new_zeros(())
            if step >= training.unquantized:
                levels = None
                if torch.rand((), generator=generator) < training.quantizer_dropout:
                    levels = int(torch.randint(1, self.recipe.model.num_quantizers, (), generator=generator))
                quantized, codes, commitments, counts, sums = model.quantizer(features, levels)
                commitment = commitments.mean()
                # What the codebooks do not resolve yet, a decoder that only sees codes never asks the encoder for.
                bypass = torch.rand(batch, generator=generator) < training.bypass
                rows = bypass.repeat_interleave(training.crop)[:, None]
                quantized = torch.where(rows, features.float(), quantized)
            coarse = model.decoder(quantized, vectors)
            log_magnitude, phase = model.vocoder.spectrum(coarse, frames)
        losses = {"commitment": commitment, "coarse": coarse_mel_loss(coarse.float().unflatten(0, (batch, -1)), mel)}
        losses["magnitude"], losses["phase"] = self.spectrum_loss(
            log_magnitude.unflatten(0, (batch, -1)), phase.unflatten(0, (batch, -1)), wave
        )
        if weights.mel or weights.wave:
            decoded = model.vocoder.synthesize(log_magnitude, phase, frames).view(batch, -1)
            losses["mel"], losses["wave"] = self.mel_loss(decoded, wave), self.wave_loss(decoded, wave)
        loss = sum((getattr(weights, name) * value for name, value in losses.items()), wave.new_zeros(()))
        if not torch.isfinite(loss):
            raise RecipeError(f"step {step}: the loss is {loss.item()}; the checkpoint before it is intact")

        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * schedule(step, training.warmup, training.steps)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        revived = 0
        if step >= training.unquantized:
            revived = codebooks.update(model.quantizer, features, codes, counts, sums, generator)
        self.update_average(step)
        return {
            "loss": float(loss.detach()),
            **{k: float(v.detach()) for k, v in losses.items()},
            "gradient": float(norm),
            "revived": revived,
        }

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Moves the running average of weights and codebooks; it forgets its start quickly."""
        decay = min(self.recipe.training.average, (1 + step) / (10 + step))
        for mean, now in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            mean.lerp_(now, 1 - decay)

    def save(self, folder: Path, step: int) -> None:
        """Writes checkpoint.safetensors and model/."""
        checkpoint.save(folder / "checkpoint.safetensors", step, self._modules(), self.optimizers)
        self.average.save_pretrained(folder / "model")

    def load(self, folder: Path) -> int:
        """Continues from what `save` wrote; returns the next step."""
        return checkpoint.load(folder / "checkpoint.safetensors", self._modules(), self.optimizers)

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"model": self.model, "average": self.average}


@torch.no_grad()
def initialise(model: AudioTokenizer) -> None:
    """Starting weights: every block an identity, the input about normalised, the head's frames pulses in mid-frame."""
    first, head = model.encoder.conv1, model.vocoder.head
    first.weight.div_(LOG_MEL_SPREAD)
    assert first.bias is not None
    first.bias.copy_(-TYPICAL_LOG_MEL * first.weight.sum((1, 2)))
    for layer in model.modules():
        if isinstance(layer, TransformerLayer):
            layer.self_attn.out_proj.weight.zero_()
            layer.fc2.weight.zero_()
    bins = head.out.out_features // 2
    head.out.weight.normal_(std=0.02)
    head.out.bias[:bins] = -2.0
    head.out.bias[bins:] = math.pi * torch.arange(bins) % (2 * math.pi)


def make_optimizers(model: AudioTokenizer, learning_rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the Transformers, AdamW for everything else; one learning rate fits both."""
    named = list(model.named_parameters())
    inner = [p for name, p in named if ".layers." in name and p.dim() == 2]
    outer = [p for name, p in named if not (".layers." in name and p.dim() == 2)]
    decayed = [p for p in outer if p.dim() > 1]
    plain = [p for p in outer if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(inner, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True),
    ]


def schedule(step: int, warmup: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to 1%."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, in place of what they did before."""
    asked = threading.Event()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(recipe: Recipe, folder: Path, resume: bool) -> None:
    """Runs the recipe to its last step, or until Ctrl-C. Raises RecipeError if the folder holds another run."""
    if not resume and (folder / "checkpoint.safetensors").exists():
        raise RecipeError(f"{folder} holds a run: continue it with --resume, or choose another folder")
    training = recipe.training
    trainer = Trainer(recipe)
    first = trainer.load(folder) if resume else 0
    folder.mkdir(parents=True, exist_ok=True)
    sums: dict[str, float] = defaultdict(float)
    since, logged = time.monotonic(), first
    with open(folder / "log.jsonl", "a" if resume else "w", encoding="utf-8") as log, stop_requests() as stopping:
        for step in range(first, training.steps):
            for name, value in trainer.step(step).items():
                sums[name] += value
            done = step + 1
            if done % training.log_every == 0 or done == training.steps:
                now, count = time.monotonic(), done - logged
                record: dict[str, Any] = {
                    "step": done,
                    **{name: round(total / count, 4) for name, total in sums.items()},
                }
                record["perplexity"] = [
                    round(codebooks.perplexity(c)) for c in codebooks.layers(trainer.model.quantizer)
                ]
                record["steps_per_second"] = round(count / (now - since), 2)
                log.write(json.dumps(record) + "\n")
                log.flush()
                print(progress_line(record, training.steps), flush=True)
                sums.clear()
                since, logged = now, done
            if done % training.checkpoint_every == 0 or done == training.steps or stopping.is_set():
                trainer.save(folder, done)
            if stopping.is_set():
                print(f"stopped after step {done}; --resume continues")
                return


def progress_line(record: dict[str, Any], steps: int) -> str:
    """One line: step, losses, codebook perplexities, speed."""
    names = ("mel", "coarse", "magnitude", "phase", "wave", "commitment")
    losses = " ".join(f"{name} {record[name]:.3f}" for name in names if name in record)
    usage = "-".join(str(p) for p in record["perplexity"])
    return f"{record['step']}/{steps} {losses} | codebooks {usage} | {record['steps_per_second']:.2f} steps/s"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the tokenizer's reconstruction.")
    parser.add_argument("--config", type=Path, required=True, help="recipe (JSON)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the log, the checkpoint and the model")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    args = parser.parse_args()
    try:
        train(Recipe.load(args.config), args.out, args.resume)
    except MimoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
