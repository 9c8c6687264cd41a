"""A training recipe: one JSON file with the model's shape, where the audio lies, and how to train."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mimo_audio.config import TokenizerConfig
from mimo_audio.errors import MimoError


class RecipeError(MimoError):
    """A recipe cannot be read or does not say what it should."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the summed losses from a step on (MiMo-Audio report, section 2.1, has mel 1 and commitment 1).

    Harmonics are learned from coarse, magnitude and phase; mel and wave, which need the synthesised wave and double the
    cost of a step, can wait until there is a voice to polish.
    """

    first_step: int
    mel: float
    commitment: float
    coarse: float
    magnitude: float
    phase: float
    wave: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train. Times are in steps; `crop` is in codec frames (25 Hz); rates are those of the peak."""

    seed: int
    steps: int
    batch: int
    crop: int
    learning_rate: float
    warmup: int
    weight_decay: float
    clip: float
    unquantized: int  # steps before the codebooks start
    quantizer_dropout: float  # share of steps that use only the first 1 .. R - 1 codebooks
    bypass: float  # share of crops that reach the decoder unquantized, once the codebooks have started
    average: float  # decay of the running average of the weights, which is what is exported
    precision: str  # "bfloat16" or "float32"
    log_every: int
    checkpoint_every: int
    weights: tuple[LossWeights, ...]  # by first_step, ascending from 0

    def weights_at(self, step: int) -> LossWeights:
        """The weights in force at a step."""
        return next(weights for weights in reversed(self.weights) if weights.first_step <= step)


@dataclass(frozen=True)
class Recipe:
    """model: the tokenizer's shape; data: share of the crops by folder or manifest; training: how."""

    model: TokenizerConfig
    data: dict[Path, float]
    training: Training

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Reads a recipe; data paths are relative to the working directory. Raises RecipeError, ModelError."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RecipeError(f"cannot read {path}: {error}") from error
        _check_keys(path, "recipe", values, {"model", "data", "training"})
        training = values["training"]
        _check_keys(path, "training", training, {f.name for f in fields(Training)})
        for stage in training["weights"]:
            _check_keys(path, "training.weights", stage, {f.name for f in fields(LossWeights)})
        if training["precision"] not in ("bfloat16", "float32"):
            raise RecipeError(
                f"{path}: training.precision: expected bfloat16 or float32, got {training['precision']!r}"
            )
        weights = tuple(LossWeights(**stage) for stage in training["weights"])
        starts = [stage.first_step for stage in weights]
        if starts[:1] != [0] or starts != sorted(starts):
            raise RecipeError(f"{path}: training.weights: expected first_step 0 and then ascending, got {starts}")
        data = {Path(source): float(share) for source, share in values["data"].items()}
        return cls(TokenizerConfig.from_dict(values["model"]), data, Training(**{**training, "weights": weights}))


def _check_keys(path: Path, where: str, values: Any, expected: set[str]) -> None:
    if not isinstance(values, dict) or values.keys() != expected:
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise RecipeError(f"{path}: {where}: expected the keys {sorted(expected)}, got {got}")
