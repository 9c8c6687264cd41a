"""Trains the language model: the stages of the MiMo-Audio report, sections 3 and 4 (`mimo-audio train lm`).

Each stage has a folder in the output folder: checkpoint-STEP/ (everything needed to continue exactly), log.jsonl,
tensorboard/, and model/, as AudioLanguageModel.from_pretrained reads it. Step n depends on the recipe and the state
after step n - 1 alone, whatever the number of processes, which share the micro-batches.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimo_audio.errors import MimoError, ModelError
from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.losses import Counts, LossPass, Packed, combine, pack
from mimo_audio.text import TextTokenizer
from mimo_audio.train import distributed_checkpoint as checkpoint
from mimo_audio.train import parallel, resumption
from mimo_audio.train.batch import Batch, Source
from mimo_audio.train.flops import peak_flops, step_flops
from mimo_audio.train.lm_data import make_source
from mimo_audio.train.lm_recipe import LanguageModelRecipe, Stage
from mimo_audio.train.lm_sounds import Sounds
from mimo_audio.train.lm_start import MODULES, initialise, make_optimizer, schedule
from mimo_audio.train.log import TrainingLog
from mimo_audio.train.loop import run
from mimo_audio.train.lora import add_lora
from mimo_audio.train.processes import Processes, connected
from mimo_audio.train.recipe import TrainingError
from mimo_audio.train.reconstruction import autocast

LOG = logging.getLogger(__name__)
MODEL = "model"
FRAME_RATE = 25.0  # of the codec, Hz
FREE = (  # change no step, besides those of resumption
    *(
        "validation",
        "validation_batches",
        "sounds",
        "tokenizer",
        "activation_checkpointing",
        "shard",
        "tensor_parallel",
    ),
)


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch as the trainer reads it ahead: laid out for the losses, and how many labels each task has."""

    packed: Packed
    labels: Counter[str]  # by task: text labels and labelled codes


def read(model: AudioLanguageModel, batch: Batch, stage: Stage) -> MicroBatch:
    """Prepares a batch on the host. Raises LanguageModelError."""
    packed = pack(model, batch.input_ids, batch.labels, batch.documents, stage.empty_loss_weight)
    labels: Counter[str] = Counter()
    tasks = [task for row in batch.tasks for task in row]
    if tasks:
        codes = packed.codes[0].numel() if len(packed.codes) and stage.kind != "understanding" else 0
        for positions, each in ((packed.text_at, 1), (packed.patch_at, codes)):
            documents = torch.searchsorted(packed.cu_seqlens, positions, right=True) - 1
            for document, count in zip(*(x.tolist() for x in documents.unique(return_counts=True)), strict=True):
                labels[tasks[document]] += count * each
    return MicroBatch(packed, labels)


class Trainer:
    """A stage of a recipe, its model and its data."""

    def __init__(
        self,
        model: AudioLanguageModel,
        stage: Stage,
        source: Source,
        processes: Processes,
        noted: Mapping[str, Any] | None = None,
        validation: Source | None = None,
        sounds: Sounds | None = None,
    ) -> None:
        if stage.micro_batches % processes.count:
            raise TrainingError(
                f"micro_batches: expected a multiple of the {processes.count} processes, got {stage.micro_batches}"
            )
        weights = stage.weights(model.config.audio_channels)
        if len(weights) != 1 + model.config.audio_channels:
            raise TrainingError(f"loss_weights: expected {1 + model.config.audio_channels}, got {len(weights)}")
        self.model = model.to(processes.device)
        if stage.lora:
            add_lora(self.model, stage.lora, stage.seed)
        if stage.precision == "pure_bfloat16":
            self.model = self.model.bfloat16()
        self.training, self.source, self.validation, self.sounds = stage, source, validation, sounds
        self.saved: Path | None = None  # the model folder of the last checkpoint
        self.has_originals = False  # whether the log has what the answers should sound like
        self.processes, self.noted = processes, noted or {}
        self.weights = weights
        self.audio = any(weights[1:])
        self.micro_batches = range(processes.rank, stage.micro_batches, processes.count)
        self.loss_pass = LossPass(self.model).train()
        parallel.distribute(self.loss_pass, stage, processes)
        self.optimizer = make_optimizer(self.model, stage)
        dtype = torch.float32 if stage.precision == "float32" else torch.bfloat16
        self.peak = peak_flops(processes.device, dtype) * processes.count
        self.shown: tuple[str, ...] = (
            "loss",
            "text",
            *(f"audio{c + 1}" for c in range(len(weights) - 1) if self.audio),
        )

    def read(self, step: int, micro_batch: int) -> MicroBatch:
        """A micro-batch of the stage's data."""
        return read(self.model, self.source.batch(step, micro_batch), self.training)

    def step(self, step: int, batches: Iterable[MicroBatch]) -> dict[str, float]:
        """One step on this process's micro-batches; returns the losses over all.

        Raises TrainingError if one is not finite, or what reading raises, in every process; then no weight has changed.
        """
        processes = self.processes
        share = schedule(step, self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.optimizer.zero_grad()
        read = self._read_all(step, batches)
        counts = self._global([m.packed.counts for m in read])
        if not counts.text:
            raise TrainingError(f"step {step}: no label in the whole step; the last checkpoint is intact")
        totals = torch.zeros(2 + self.model.config.audio_channels, dtype=torch.float64, device=processes.device)
        for micro_batch in read:
            totals += self._backward(micro_batch.packed.to(processes.device), counts)
        loss, text, *codes = processes.sum(totals).tolist()
        numbers = {"loss": loss, "text": text}
        if self.audio and counts.frames:
            numbers |= {f"audio{c + 1}": value for c, value in enumerate(codes)}
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        if not self.training.shard:
            processes.sum_gradients(trained)
        numbers |= self._clip()
        for name, number in numbers.items():
            if not abs(number) < float("inf"):
                raise TrainingError(f"step {step}: {name} is {number}; the last checkpoint is intact")
        self.optimizer.step()
        return numbers | {"learning_rate": share} | self._amounts(read)

    def _read_all(self, step: int, batches: Iterable[MicroBatch]) -> list[MicroBatch]:
        failure = None
        try:
            read = list(batches)
        except MimoError as error:  # told to the others first, which would wait for this process's micro-batch
            failure, read = error, []
        if self.processes.any(failure is not None):
            raise failure or MimoError(f"step {step}: another process could not read its data")
        return read

    def _global(self, counts: list[Counts]) -> Counts:
        sums = torch.stack([sum((c.text for c in counts), torch.zeros(())).double(),
                            sum((c.frames for c in counts), torch.zeros(())).double()])  # fmt: skip
        text, frames = self.processes.sum(sums.to(self.processes.device))
        return Counts(text, frames)

    def _backward(self, packed: Packed, counts: Counts) -> Tensor:
        """Adds the micro-batch's gradients; returns its share of total, text and every codebook's loss."""
        with autocast(self.processes.device, self.training.precision):
            entropies = self.loss_pass(packed, self.audio)
        losses = combine(entropies.sums(packed), counts, self.weights)
        losses.total.backward()
        return torch.cat([torch.stack([losses.total, losses.text]), losses.channels]).detach()

    def _clip(self) -> dict[str, float]:
        """Scales the gradients to the largest norm allowed; returns their norms before that."""
        squares = dict.fromkeys(MODULES, 0.0)
        gradients = list[Tensor]()
        for group in self.optimizer.param_groups:
            found = [p.grad for p in group["params"] if p.grad is not None]
            squares[group["name"]] += parallel.square_norm(found)
            gradients += found
        norm = sum(squares.values()) ** 0.5
        for similar in parallel.alike(gradients):
            torch._foreach_mul_(similar, min(1.0, self.training.clip / (norm + 1e-6)))
        return {"gradient": norm, **{f"gradient/{name}": value**0.5 for name, value in squares.items() if value}}

    def _amounts(self, read: list[MicroBatch]) -> dict[str, float]:
        """What this step has worked on, in all processes."""
        config = self.model.config
        packs = [m.packed for m in read]
        patches = sum(int((p.groups[:, 0, 0] == self.model.special.empty).sum()) for p in packs)
        codes = sum(p.codes.numel() for p in packs) if self.audio else 0
        text = sum(int((p.text != self.model.special.empty).sum()) for p in packs)
        amounts = torch.tensor(
            [
                sum(len(p.groups) for p in packs),
                text + codes,
                patches * config.group_size / FRAME_RATE,
                sum(step_flops(self.model, p, self.audio) for p in packs) / self.peak,
            ],
            dtype=torch.float64,
        )
        names = ("positions_per_second", "loss_tokens_per_second", "audio_hours_per_hour", "mfu")
        found = dict(zip(names, self.processes.sum(amounts.to(self.processes.device)).tolist(), strict=True))
        total = self.training.rows * self.training.context * self.training.micro_batches
        found["filled"] = found["positions_per_second"] / total  # share of the rows that is no padding
        labels: Counter[str] = sum((m.labels for m in read), Counter())
        return found | {f"labels/{task}": float(count) for task, count in labels.items()}

    def notes(self) -> dict[str, Any]:
        """Nothing besides a step's numbers."""
        return {}

    def save(self, folder: Path, done: int) -> None:
        """Writes model/ and then the checkpoint, whose presence tells that both are there. Raises OutputError."""
        self.saved = folder / MODEL
        parallel.save_pretrained(self.model, self.training.lora, self.saved, self.processes)
        checkpoint.save(folder, done, self.noted, self.model, self.optimizer, self.processes)

    def load(self, folder: Path) -> int:
        """Continues from what `save` wrote; returns the next step. Raises ModelError."""
        path = checkpoint.latest(folder)
        if path is None:
            raise ModelError(f"cannot resume from {folder}: no checkpoint")
        return checkpoint.load(path, self.model, self.optimizer, self.processes)

    def examine(self, log: TrainingLog | None, done: int) -> None:
        """Notes the mean cross-entropy of the validation data's text and codes, by task, and some answers' sound."""
        if self.validation is not None:
            self._validate(self.validation, log, done)
        if self.sounds is not None and log and self.saved:
            try:
                self._listen(self.sounds, self.saved, log, done)
            except MimoError as error:  # a look at the run, which shall not end it
                LOG.warning("no sounds: %s", error)

    def _listen(self, sounds: Sounds, saved: Path, log: TrainingLog, done: int) -> None:
        if not self.has_originals:
            for name, wave in sounds.originals():
                log.listen(done, name, wave, sounds.sample_rate)
            self.has_originals = True
        for name, wave in sounds.answers(saved, self.processes.device):
            log.listen(done, name, wave, sounds.sample_rate)

    @torch.no_grad()
    def _validate(self, validation: Source, log: TrainingLog | None, done: int) -> None:
        sums: dict[str, Tensor] = {}  # by task: of text, labels, of codes, labels
        for number in range(self.processes.rank, self.training.validation_batches, self.processes.count):
            batch = validation.batch(0, number)
            packed = read(self.model, batch, self.training).packed
            with autocast(self.processes.device, self.training.precision):
                found = self.loss_pass(packed.to(self.processes.device), self.audio)
            tasks = [task for row in batch.tasks for task in row]
            is_text = packed.text != self.model.special.empty
            codes = None if found.codes is None else found.codes.mean((1, 2)).cpu()
            for column, at, values in (
                (0, packed.text_at[is_text], found.text.cpu()[is_text]),
                (2, packed.patch_at, codes),
            ):
                if values is None:
                    continue
                documents = torch.searchsorted(packed.cu_seqlens, at, right=True) - 1
                for document, value in zip(documents.tolist(), values.double().tolist(), strict=True):
                    total = sums.setdefault(tasks[document], torch.zeros(4, dtype=torch.float64))
                    total[column : column + 2] += torch.tensor([value, 1.0], dtype=torch.float64)
        for task, total in gathered(sums, self.processes).items():
            if log:
                log.note(done, f"validation/{task}", {
                    kind: float(total[column] / total[column + 1])
                    for column, kind in ((0, "text"), (2, "audio")) if total[column + 1]
                })  # fmt: skip


def gathered(sums: dict[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """The sums over all processes, which need not have the same keys."""
    if processes.count == 1:
        return sums
    everyone: list[Any] = [None] * processes.count
    torch.distributed.all_gather_object(everyone, {k: v.tolist() for k, v in sums.items()}, group=processes.group)
    found: dict[str, Tensor] = {}
    for part in everyone:
        for task, values in part.items():
            found[task] = found.get(task, torch.zeros(4, dtype=torch.float64)) + torch.tensor(values)
    return found


def noted(recipe: LanguageModelRecipe, name: str) -> dict[str, Any]:
    """What a stage's checkpoint holds of its recipe, as parsed JSON."""
    skipped = (*FREE, *resumption.FREE)
    stage = {key: value for key, value in asdict(recipe.stages[name]).items() if key not in skipped}
    model = recipe.model.to_dict() if recipe.model else recipe.start
    return json.loads(json.dumps({"model": model, name: stage}, default=str))


def train(recipe: LanguageModelRecipe, folder: Path, resume: bool, device: str = "cpu") -> None:
    """Runs the recipe's stages, each to its last step. Raises MimoError with one line for whatever stops it.

    resume: continue the run in the folder.
    """
    names = list(recipe.stages)
    begun = [name for name in names if checkpoint.latest(folder / name)]
    if begun and not resume:
        raise TrainingError(f"{folder / begun[0]} holds a run: continue it with --resume, or choose another folder")
    if resume and not begun:
        raise TrainingError(f"--resume: {folder} holds no run to continue")
    for name in begun:
        path, is_done = checkpoint.latest(folder / name), name != begun[-1]
        assert path
        changes = resumption.check(path, checkpoint.recipe_of(path), noted(recipe, name), is_done)
        if changes and not int(os.environ.get("RANK", 0)):
            LOG.info(changes)
    first = names.index(begun[-1]) if begun else 0
    with connected(device) as alone:
        alone.wait()
        for number, name in enumerate(names[first:], first):
            place = folder / name
            processes = parallel.arranged(alone, recipe.stages[name].tensor_parallel)
            is_begun = name in begun
            start = folder / names[number - 1] / MODEL if number else None
            trainer = make_trainer(recipe, name, processes, start)
            if not run(trainer, place, trainer.load(place) if is_begun else 0):
                return


def train_one(recipe: LanguageModelRecipe, name: str, place: Path, resume: bool, device: str) -> None:
    """Runs one stage of a recipe in the folder `place`, from the recipe's start. Raises MimoError."""
    path = checkpoint.latest(place)
    if path and not resume:
        raise TrainingError(f"{place} holds a run: continue it with --resume, or choose another folder")
    if path:
        resumption.check(path, checkpoint.recipe_of(path), noted(recipe, name), False)
    with connected(device) as alone:
        processes = parallel.arranged(alone, recipe.stages[name].tensor_parallel)
        trainer = make_trainer(recipe, name, processes, None)
        run(trainer, place, trainer.load(place) if path else 0)


def make_trainer(recipe: LanguageModelRecipe, name: str, processes: Processes, start: Path | None) -> Trainer:
    """A stage's trainer, beginning with the model in the folder `start`, or as the recipe begins."""
    stage = recipe.stages[name]
    model, text = make_model(recipe, stage.seed, start)
    if stage.context > model.config.max_position_embeddings:
        raise TrainingError(
            f"stages.{name}.context: expected at most max_position_embeddings, {model.config.max_position_embeddings}, "
            f"got {stage.context}"
        )
    data, validation = (
        make_source(data, model.config, text, stage.rows, stage.context, stage.seed) if data else None
        for data in (stage.data, stage.validation)
    )
    assert data is not None
    sounds = Sounds(validation, stage.sounds, stage.tokenizer) if validation and stage.sounds else None
    return Trainer(model, stage, data, processes, noted(recipe, name), validation, sounds)


def make_model(recipe: LanguageModelRecipe, seed: int, start: Path | None) -> tuple[AudioLanguageModel, TextTokenizer]:
    """The model to begin with, float32 on the CPU, and its text tokenizer. Raises ModelError."""
    folder = start or recipe.start
    if folder is not None:
        model = AudioLanguageModel.from_pretrained(folder)
        assert model.text_folder is not None
        return model, TextTokenizer.load(model.text_folder, model.config.vocab_size)
    assert recipe.model
    assert recipe.text_tokenizer
    text = TextTokenizer.load(recipe.text_tokenizer, recipe.model.vocab_size)
    model = AudioLanguageModel(recipe.model, text.special, recipe.text_tokenizer)
    initialise(model, seed)
    return model, text
