"""A recipe of language-model training: one JSON file with the model, its stages, and what each of them reads.

MiMo-Audio report, table 3, has the values for its sizes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mimo_audio.errors import MimoError
from mimo_audio.files.schema import Fraction, Range, Size, Steps, Weight, checked, read_json, refuse, shown
from mimo_audio.lm import LanguageModelConfig
from mimo_audio.lm.losses import EMPTY_LOSS_WEIGHT, default_weights
from mimo_audio.train.lm_data import Data
from mimo_audio.train.lora import Lora
from mimo_audio.train.recipe import Positive, Rate, RecipeError, Seed

Kind = Literal["understanding", "understanding_generation", "post_training"]


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Peaks for the three modules; the patch encoder's include the speech embeddings, the backbone's the text's."""

    patch_encoder: Rate
    backbone: Rate
    patch_decoder: Rate = 0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How a stage trains. A step takes `micro_batches` of `rows` rows of `context` positions, whatever the processes.

    kind: a column of the report's table 3; understanding trains on the text alone and leaves the patch decoder as it
    is. warmup: share of the steps. loss_weights: of the text and of every codebook. precision: "bfloat16" keeps weights
    in float32 and multiplies in bfloat16, "pure_bfloat16" keeps weights and moments in bfloat16, too.

    sounds: so many spoken answers to requests of `validation` are decoded by `tokenizer` (a folder, or "nano") after
    every checkpoint, for TensorBoard.

    lora: train adapters only, which are merged into what model/ holds.

    For models that are too large for one GPU: activation_checkpointing computes the forward pass of blocks again for
    the gradient, shard splits weights and moments among the processes (FSDP2), and tensor_parallel says how many of
    them split every matrix product of a micro-batch. None of them changes what is computed.
    """

    kind: Kind
    seed: Seed
    steps: Steps
    rows: Size
    context: Size
    micro_batches: Size
    learning_rates: LearningRates
    schedule: Literal["constant", "cosine"]
    warmup: Fraction
    precision: Literal["bfloat16", "pure_bfloat16", "float32"]
    data: Data
    validation: Data | None = None
    validation_batches: Size = 8
    sounds: Annotated[int, Range(0, 64)] = 0
    tokenizer: str = "nano"
    weight_decay: Rate = 0.1
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    clip: Positive = 1.0
    loss_weights: tuple[Weight, ...] | None = None
    empty_loss_weight: Weight = EMPTY_LOSS_WEIGHT
    lora: Lora | None = None
    activation_checkpointing: bool = False
    shard: bool = False
    tensor_parallel: Size = 1
    workers: Annotated[int, Range(1, 1024)] = 1  # threads that read data
    log_every: Steps = 10
    checkpoint_every: Steps = 500

    def weights(self, channels: int) -> tuple[float, ...]:
        """Loss weights of the text and of every codebook."""
        if self.kind == "understanding":
            return (1.0, *[0.0] * channels)
        return self.loss_weights or default_weights(channels)


@dataclass(frozen=True)
class LanguageModelRecipe:
    """start: a model folder to begin with, or model: sizes, and text_tokenizer: the folder that has its files.

    stages: by name, in the order in which they are trained, each beginning with what the one before it has left.
    """

    stages: dict[str, Stage]
    model: LanguageModelConfig | None = None
    text_tokenizer: Path | None = None
    start: str | None = None

    @classmethod
    def load(cls, path: Path) -> "LanguageModelRecipe":
        """Reads a recipe; paths in it are relative to the working directory. Raises RecipeError with one line."""
        try:
            values = read_json(path)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        try:
            return cls.from_dict(values)
        except MimoError as error:
            raise RecipeError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: Any) -> "LanguageModelRecipe":
        """The recipe in parsed JSON. Raises RecipeError, and ModelError for the model."""
        known = ("model", "text_tokenizer", "start", "stages")
        if not isinstance(values, dict) or not {"stages"} <= values.keys() <= set(known):
            got = ", ".join(values) if isinstance(values, dict) else shown(values)
            raise RecipeError(f"a recipe must have stages and either start or model and text_tokenizer, got {got}")
        problems: list[str] = []
        if ("start" in values) == ("model" in values) or ("model" in values) != ("text_tokenizer" in values):
            problems.append(
                f"a recipe must have either start or model and text_tokenizer, got {', '.join(values.keys())}"
            )
        for name in ("start", "text_tokenizer"):
            if not isinstance(values.get(name, ""), str):
                problems.append(f"{name} must be a folder, got {shown(values[name])}")
        stages = values["stages"]
        if not isinstance(stages, dict) or not stages:
            problems.append(f"stages must be an object of stages by name, got {shown(stages)}")
            stages = {}
        read = {name: checked(f"stages.{name}", Stage, stage, problems) for name, stage in stages.items()}
        problems += [f"stages must have names of letters, digits, - and _, got {shown(name)}" for name in read
                     if not name.replace("-", "").replace("_", "").isalnum()]  # fmt: skip
        refuse(problems, RecipeError, "recipe")
        model = LanguageModelConfig.from_dict(values["model"]) if "model" in values else None
        recipe = cls(read, model, Path(values["text_tokenizer"]) if model else None, values.get("start"))
        refuse(_contradictions(recipe), RecipeError, "recipe")
        return recipe


def _contradictions(recipe: LanguageModelRecipe) -> list[str]:
    """Values that are fine alone but not together."""
    problems = []
    for name, stage in recipe.stages.items():
        where = f"stages.{name}"
        if stage.kind == "understanding":
            if stage.loss_weights is not None:
                problems.append(f"{where}.loss_weights must be absent: understanding trains on the text alone")
            if stage.learning_rates.patch_decoder:
                problems.append(f"{where}.learning_rates.patch_decoder must be absent: understanding does not train it")
        if stage.sounds and (stage.validation is None or stage.kind == "understanding"):
            problems.append(f"{where}.sounds must be 0 without validation or in understanding, which learns no speech")
        if stage.loss_weights is not None and not any(stage.loss_weights):
            problems.append(f"{where}.loss_weights must have one above 0")
        if recipe.model and stage.loss_weights is not None:
            wanted = 1 + recipe.model.audio_channels
            if len(stage.loss_weights) != wanted:
                problems.append(f"{where}.loss_weights must be {wanted}, of the text and of every codebook")
        if recipe.model and stage.context > recipe.model.max_position_embeddings:
            most = recipe.model.max_position_embeddings
            problems.append(f"{where}.context must be at most max_position_embeddings, {most}, got {stage.context}")
        if 1.0 in stage.betas:
            problems.append(f"{where}.betas must be below 1")
    return problems
