"""Trains the tokenizer: both stages of the MiMo-Audio report, section 2.1, by one loop (`mimo-audio train tokenizer`).

Each stage has a folder in the output folder: checkpoint.safetensors (everything needed to continue exactly), log.jsonl,
tensorboard/, and model/, the running average of the weights as AudioTokenizer.from_pretrained reads it. Step n depends
on the recipe and the state after step n - 1 alone, whatever the number of processes, which share the micro-batches.
"""

import copy
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from mimo_audio.errors import AudioError
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train import checkpoint, codebooks, resumption
from mimo_audio.train.audio_data import AudioData, Batch
from mimo_audio.train.log import TrainingLog
from mimo_audio.train.loop import run
from mimo_audio.train.processes import Processes, connected
from mimo_audio.train.recipe import Recipe, Stage1, Stage2, Training, TrainingError
from mimo_audio.train.stage1 import ReconstructionStage
from mimo_audio.train.stage2 import AdversarialStage
from mimo_audio.train.starting_point import read_start, schedule

LOG = logging.getLogger(__name__)
SAMPLES = 4  # crops to listen to, per checkpoint
CHECKPOINT, MODEL = "checkpoint.safetensors", "model"


class Trainer:
    """A stage, its data, the running average of its model."""

    shown: tuple[str, ...] = (
        *("audio_to_text", "mel", "coarse", "magnitude", "phase", "wave", "commitment"),
        *("adversarial", "feature_matching", "discriminator"),
    )

    def __init__(
        self,
        stage: ReconstructionStage | AdversarialStage,
        data: AudioData,
        processes: Processes,
        noted: Mapping[str, Any],
    ) -> None:
        self.stage, self.data, self.processes = stage, data, processes
        self.noted = noted  # of the recipe, in checkpoints
        self.training = stage.training
        self.micro_batches = range(processes.rank, self.training.micro_batches, processes.count)
        if self.training.micro_batches % processes.count:
            raise TrainingError(
                f"micro_batches: expected a multiple of the {processes.count} processes, "
                f"got {self.training.micro_batches}"
            )
        self.average = copy.deepcopy(stage.model).requires_grad_(False)
        for optimizer in stage.optimizers:
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]

    def read(self, step: int, micro_batch: int) -> Batch:
        """A micro-batch of the recipe's audio."""
        return self.data(step, micro_batch)

    def step(self, step: int, batches: Iterable[Batch]) -> dict[str, float]:
        """One step on this process's micro-batches; returns the losses over all.

        Raises TrainingError if one is not finite, AudioError in every process if one cannot read; then no weight has
        changed.
        """
        stage, training, processes = self.stage, self.training, self.processes
        for optimizer in stage.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(step, training.warmup, training.steps)
        stage.begin(step)
        share, totals = 1 / training.micro_batches, dict[str, torch.Tensor]()
        failure = None
        try:
            for micro_batch, batch in zip(self.micro_batches, batches, strict=True):
                for name, value in stage.backward(step, micro_batch, batch.to(processes.device), share).items():
                    totals[name] = totals.get(name, 0) + value * share
        except AudioError as error:  # told to the others first, which would wait for this process's micro-batch
            failure = error
        if processes.any(failure is not None):
            raise failure or AudioError(f"step {step}: another process could not read its recordings")
        losses = dict(zip(totals, processes.sum(torch.stack([*totals.values()])).tolist(), strict=True))
        processes.sum_gradients(parameter for group in stage.parameter_groups for parameter in group)
        norms = [float(torch.nn.utils.clip_grad_norm_(group, training.clip)) for group in stage.parameter_groups]
        losses |= dict(zip(("gradient", "discriminator_gradient"), norms, strict=False))
        for name, number in losses.items():
            if not abs(number) < float("inf"):
                raise TrainingError(f"step {step}: {name} is {number}; the last checkpoint is intact")
        for optimizer in stage.optimizers:
            optimizer.step()
        losses |= stage.finish(step)
        self.update_average(step)
        return losses

    def notes(self) -> dict[str, Any]:
        """How many entries of every codebook are in use."""
        books = codebooks.layers(self.stage.model.quantizer)
        return {"perplexity": [round(codebooks.perplexity(book)) for book in books]}

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Moves the running average of weights and codebooks; it forgets its start quickly."""
        decay = min(self.training.average, (1 + step) / (10 + step))
        for mean, now in zip(self.average.state_dict().values(), self.stage.model.state_dict().values(), strict=True):
            mean.lerp_(now, 1 - decay)

    def save(self, folder: Path, done: int) -> None:
        """Writes model/ and then the checkpoint, whose presence tells that both are there. Raises OutputError."""
        if self.processes.rank:
            return
        self.average.save_pretrained(folder / MODEL)
        checkpoint.save(folder / CHECKPOINT, done, self.noted, self._modules(), self.stage.optimizers)

    def load(self, folder: Path) -> int:
        """Continues from what `save` wrote; returns the next step. Raises ModelError."""
        return checkpoint.load(folder / CHECKPOINT, self._modules(), self.stage.optimizers)

    def examine(self, log: TrainingLog | None, done: int) -> None:
        """Notes the same few crops at every checkpoint, as the averaged model renders them."""
        if log is None or log.board is None:
            return
        rate = self.average.config.sampling_rate
        waves = self.data(0).crops[:SAMPLES].to(self.processes.device)
        decoded = self.average.decode_batch(self.average.encode_batch(list(waves)))
        log.listen(done, "original", waves.flatten().cpu(), rate)
        log.listen(done, "decoded", torch.cat(decoded).float().cpu(), rate)

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {**self.stage.modules(), "average": self.average}


def train(recipe: Recipe, folder: Path, resume: bool, start: str | None = None, device: str = "cpu") -> None:
    """Runs the recipe's stages, each to its last step. Raises MimoError with one line for whatever stops it.

    Progress goes to the log (`logging`, level INFO).

    resume: continue the run in the folder. start: the tokenizer that stage 2 begins with (a folder, or "nano"), instead
    of a stage 1.
    """
    stages: list[Stage1 | Stage2] = [stage for stage in (recipe.stage1, recipe.stage2) if stage]
    if start is not None:
        if recipe.stage2 is None:
            raise TrainingError("--start: expected a recipe with a stage 2, got one without")
        stages = [recipe.stage2]
    elif resume and recipe.stage2 and (folder / "stage2" / CHECKPOINT).exists():
        stages = [recipe.stage2]  # stage 1 is done, or there was none
    taken = [folder / stage.name for stage in stages if (folder / stage.name / CHECKPOINT).exists()]
    if taken and not resume:
        raise TrainingError(f"{taken[0]} holds a run: continue it with --resume, or choose another folder")
    if resume and not taken:
        raise TrainingError(f"--resume: {folder} holds no run to continue")
    _check_resumption(recipe, folder)
    with connected(device) as processes:
        processes.wait()
        for training in stages:
            place = folder / training.name
            is_begun = (place / CHECKPOINT).exists()
            beginning = training.start if isinstance(training, Stage1) else start or folder / "stage1" / MODEL
            trainer = make_trainer(recipe, training, processes, None if is_begun else beginning)
            if not run(trainer, place, trainer.load(place) if is_begun else 0):
                return


def _check_resumption(recipe: Recipe, folder: Path) -> None:
    """Says what the recipe changes of a run in the folder. Raises TrainingError for what it may not change."""
    for training, is_done in ((recipe.stage1, (folder / "stage2" / CHECKPOINT).exists()), (recipe.stage2, False)):
        if training and (path := folder / training.name / CHECKPOINT).exists():
            changes = resumption.check(path, checkpoint.recipe_of(path), resumption.noted(recipe, training), is_done)
            if changes and not int(os.environ.get("RANK", 0)):
                LOG.info(changes)


def make_trainer(recipe: Recipe, training: Stage1 | Stage2, processes: Processes, start: str | Path | None) -> Trainer:
    """A stage's trainer, from the tokenizer `start`; None: random weights, of stage 2 to be loaded over."""
    data = make_data(recipe, training)
    stage: ReconstructionStage | AdversarialStage
    if isinstance(training, Stage1):
        stage = ReconstructionStage(recipe, training, data, processes, start)
    else:
        model = AudioTokenizer(recipe.model) if start is None else read_start(recipe, start)
        stage = AdversarialStage(model, training, processes)
    return Trainer(stage, data, processes, resumption.noted(recipe, training))


def make_data(recipe: Recipe, training: Training) -> AudioData:
    """The recipe's audio in a stage's crops."""
    config = recipe.model
    frame = config.stride_size * config.avg_pooler * config.hop_length
    text = training.audio_to_text if isinstance(training, Stage1) else None
    return AudioData(
        sources=recipe.data,
        sample_rate=config.sampling_rate,
        samples=training.crop * frame,
        batch=training.batch,
        seed=training.seed,
        frame=frame,
        utterances=text.batch if text else 0,
        seconds=text.seconds if text else 0,
    )
