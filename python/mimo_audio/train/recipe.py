"""A training recipe: one JSON file with the model's shape, where the audio lies, and how each stage trains."""

import json
import types
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from mimo_audio.errors import MimoError
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.discriminators import DiscriminatorShape

Section = TypeVar("Section")
PRECISIONS = ("bfloat16", "float32")
POSITIVE = (".clip", ".seconds")
FRACTIONS = ("quantizer_dropout", "bypass", "average")


class RecipeError(MimoError):
    """A recipe cannot be read or does not say what it should."""


class TrainingError(MimoError):
    """A run cannot begin, or cannot go on."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the summed losses from a step on (MiMo-Audio report, section 2.1).

    Stage 1 of the paper: audio_to_text 10, mel 1, commitment 1; stage 2: mel 1, adversarial 1, feature_matching 2. The
    others are for small models, whose harmonics are learned from coarse, magnitude and phase; mel and wave, which need
    the synthesised wave and double the cost of a step, can wait until there is a voice to polish.
    """

    first_step: int
    audio_to_text: float = 0
    mel: float = 0
    commitment: float = 0
    coarse: float = 0
    magnitude: float = 0
    phase: float = 0
    wave: float = 0
    adversarial: float = 0
    feature_matching: float = 0


@dataclass(frozen=True, kw_only=True)
class AudioToText:
    """The language model that reads whole recordings and writes their text: its sizes, and recordings per part."""

    width: int
    layers: int
    heads: int
    ffn_dim: int
    batch: int
    seconds: float  # longer recordings are passed over


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a stage trains. Times are in steps; `crop` is in codec frames (25 Hz); rates are those of the peak.

    A step takes the mean gradient of `parts` independent batches, which the processes of a parallel run share.
    """

    seed: int
    steps: int
    batch: int  # crops of a part
    parts: int
    crop: int
    learning_rate: float
    warmup: int
    weight_decay: float
    clip: float
    quantizer_dropout: float  # share of steps that use only the first 1 .. R - 1 codebooks
    average: float  # decay of the running average of the weights, which is what is exported
    precision: str  # "bfloat16" or "float32"
    workers: int  # threads that read audio
    log_every: int
    checkpoint_every: int
    weights: tuple[LossWeights, ...]  # by first_step, ascending from 0

    def weights_at(self, step: int) -> LossWeights:
        """The weights in force at a step."""
        return next(weights for weights in reversed(self.weights) if weights.first_step <= step)


@dataclass(frozen=True, kw_only=True)
class Stage1(Training):
    """Everything from scratch: reconstruction, codebooks and, where asked for, text."""

    unquantized: int  # steps before the codebooks start
    bypass: float  # share of crops that reach the decoder unquantized, once the codebooks have started
    audio_to_text: AudioToText | None = None


@dataclass(frozen=True, kw_only=True)
class Stage2(Training):
    """Decoder and vocoder against discriminators; encoder and codebooks stay."""

    discriminator_learning_rate: float
    discriminators: DiscriminatorShape


@dataclass(frozen=True)
class Recipe:
    """model: the tokenizer's shape; data: share of the crops by folder or manifest; stages: one or both."""

    model: TokenizerConfig
    data: dict[Path, float]
    stage1: Stage1 | None = None
    stage2: Stage2 | None = None

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Reads a recipe; data paths are relative to the working directory. Raises RecipeError, ModelError."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RecipeError(f"cannot read {path}: {error}") from error
        try:
            _check_keys("recipe", values, {"model", "data"}, {"model", "data", "stage1", "stage2"})
            stage1 = _section("stage1", Stage1, values["stage1"]) if "stage1" in values else None
            stage2 = _section("stage2", Stage2, values["stage2"]) if "stage2" in values else None
            _expect(stage1 or stage2, "recipe", "stage1 or stage2 or both", "neither")
            _expect(isinstance(values["model"], dict), "model", "an object", values["model"])
            recipe = cls(TokenizerConfig.from_dict(values["model"]), _shares(values["data"]), stage1, stage2)
            _check_stages(recipe)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error
        return recipe


def _section(where: str, kind: type[Section], values: Any) -> Section:
    """The dataclass `kind` from parsed JSON, every value of the annotated type."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    _check_keys(where, values, {name for name, f in known.items() if f.default is MISSING}, set(known))
    return kind(**{name: _value(f"{where}.{name}", known[name].type, value) for name, value in values.items()})


def _value(where: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) is types.UnionType:  # X | None
        return None if value is None else _value(where, get_args(kind)[0], value)
    if get_origin(kind) is tuple:
        _expect(isinstance(value, list) and value, where, "a list that is not empty", value)
        return tuple(_value(f"{where}[{i}]", get_args(kind)[0], item) for i, item in enumerate(value))
    if is_dataclass(kind):
        return _section(where, kind, value)  # type: ignore[arg-type]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float:
        _expect(number and 0 <= value < 1e30, where, "a number >= 0", value)
        _expect(value or not where.endswith(POSITIVE), where, "a number > 0", value)
        _expect(not where.endswith(FRACTIONS) or value <= 1, where, "a number from 0 to 1", value)
        return float(value)
    if kind is int:
        low = 0 if where.endswith(("first_step", "warmup", "unquantized", "seed")) else 1
        _expect(number and isinstance(value, int) and value >= low, where, f"an integer >= {low}", value)
        _expect(value < 1 << 62, where, "an integer below 2 ** 62", value)
    else:  # the only word that a recipe holds
        _expect(value in PRECISIONS, where, " or ".join(PRECISIONS), value)
    return value


def _shares(data: Any) -> dict[Path, float]:
    _expect(isinstance(data, dict) and data, "data", "an object of folders or manifests with their shares", data)
    shares = {Path(source): _value(f"data.{source}", float, share) for source, share in data.items()}
    for source, share in shares.items():
        _expect(share > 0, f"data.{source}", "a share > 0", share)
    return shares


def _check_stages(recipe: Recipe) -> None:
    """Raises RecipeError for values that are fine alone but not together."""
    model = recipe.model
    _expect(model.kernel_size == 3, "model.kernel_size", "3, which keeps the frames of a crop", model.kernel_size)
    ours, theirs = model.stride_size, model.decoder_stride_size
    _expect(ours == theirs, "model.decoder_stride_size", f"the encoder's stride_size, {ours}", theirs)
    _expect(
        model.decoder_kernel_size >= theirs,
        "model.decoder_kernel_size",
        f"at least {theirs}, the stride",
        model.decoder_kernel_size,
    )
    foreign = {"stage1": ("adversarial", "feature_matching"), "stage2": ("audio_to_text", "commitment")}
    for name, stage in (("stage1", recipe.stage1), ("stage2", recipe.stage2)):
        if stage is None:
            continue
        starts = [weights.first_step for weights in stage.weights]
        _expect(
            starts[0] == 0 and starts == sorted(set(starts)),
            f"{name}.weights",
            "first_step 0 and then ascending",
            starts,
        )
        for number, weights in enumerate(stage.weights):
            given = {key: value for key, value in asdict(weights).items() if key not in ("first_step", "commitment")}
            _expect(any(given.values()), f"{name}.weights[{number}]", f"one of {sorted(given)} above 0", "none")
        _expect(stage.warmup <= stage.steps, f"{name}.warmup", f"at most steps, {stage.steps}", stage.warmup)
        for loss in foreign[name]:
            given = max(getattr(weights, loss) for weights in stage.weights)
            _expect(not given, f"{name}.weights", f"no {loss}, which belongs to the other stage", given)
    if recipe.stage1:
        reader, weight = recipe.stage1.audio_to_text, max(w.audio_to_text for w in recipe.stage1.weights)
        _expect(reader or not weight, "stage1.audio_to_text", f"sizes, as its weight is {weight:g}", None)
        _expect(not reader or weight, "stage1.weights", "a weight for audio_to_text, as it has sizes", 0)
        if reader:
            where = "stage1.audio_to_text.width"
            _expect(reader.width % (2 * reader.heads) == 0, where, f"even parts for {reader.heads} heads", reader.width)
    if recipe.stage2:
        samples = recipe.stage2.crop * model.stride_size * model.avg_pooler * model.hop_length
        for kind in ("periods", "windows"):
            widest = max(getattr(recipe.stage2.discriminators, kind))
            _expect(widest <= samples, f"stage2.discriminators.{kind}", f"at most a crop's {samples} samples", widest)
        for window in recipe.stage2.discriminators.windows:
            fine = 16 <= window <= 8192 and window % 2 == 0 and 30**13 % window == 0
            expected = "even numbers from 16 to 8192 without prime factors other than 2, 3 and 5"
            _expect(fine, "stage2.discriminators.windows", expected, window)


def _check_keys(where: str, values: Any, needed: set[str], known: set[str]) -> None:
    fine = isinstance(values, dict) and needed <= values.keys() <= known
    got = sorted(values) if isinstance(values, dict) else values
    optional = f" and perhaps {sorted(known - needed)}" if known - needed else ""
    _expect(fine, where, f"the keys {sorted(needed)}{optional}", got)


def _expect(fine: object, where: str, expected: str, got: object) -> None:
    if not fine:
        raise RecipeError(f"{where}: expected {expected}, got {got!r}")
