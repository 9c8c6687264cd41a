"""A training recipe: one JSON file with the model's shape, where the audio lies, and how each stage trains."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from mimo_audio.errors import MimoError
from mimo_audio.files.schema import Fraction, Layers, Range, Size, Steps, Weight, checked, read_json, shown
from mimo_audio.tokenizer.config import TokenizerConfig
from mimo_audio.tokenizer.discriminators import DiscriminatorShape

Start = Annotated[int, Range(0, 1 << 40)]  # a step, or a number of steps that may be none
Seed = Annotated[int, Range(0, 1 << 62)]
Rate = Annotated[float, Range(0, 1000)]
Positive = Annotated[float, Range(0, 10**9, above=True)]


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

    first_step: Start
    audio_to_text: Weight = 0
    mel: Weight = 0
    commitment: Weight = 0
    coarse: Weight = 0
    magnitude: Weight = 0
    phase: Weight = 0
    wave: Weight = 0
    adversarial: Weight = 0
    feature_matching: Weight = 0


@dataclass(frozen=True, kw_only=True)
class AudioToText:
    """The language model that reads whole recordings and writes their text: its sizes, recordings a micro-batch."""

    width: Size
    layers: Layers
    heads: Size
    ffn_dim: Size
    batch: Size
    seconds: Positive  # longer recordings are passed over


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a stage trains. Times are in steps; `crop` is in codec frames (25 Hz); rates are those of the peak.

    A step takes the mean gradient of `micro_batches` independent batches, which the processes of a parallel run share.
    """

    seed: Seed
    steps: Steps
    batch: Size  # crops of a micro-batch
    micro_batches: Size
    crop: Size
    learning_rate: Rate
    warmup: Start
    weight_decay: Rate
    clip: Positive
    quantizer_dropout: Fraction  # share of steps that use only the first 1 .. R - 1 codebooks
    average: Fraction  # decay of the running average of the weights, which is what is exported
    precision: Literal["bfloat16", "float32"]
    workers: Annotated[int, Range(1, 1024)]  # threads that read audio
    log_every: Steps
    checkpoint_every: Steps
    weights: tuple[LossWeights, ...]  # by first_step, ascending from 0

    def weights_at(self, step: int) -> LossWeights:
        """The weights in force at a step."""
        return next(weights for weights in reversed(self.weights) if weights.first_step <= step)


@dataclass(frozen=True, kw_only=True)
class Stage1(Training):
    """Everything: reconstruction, codebooks and, where asked for, text. From random weights, or from a tokenizer."""

    name: ClassVar[str] = "stage1"  # in recipes, and of its folder
    unquantized: Start  # steps before the codebooks start
    bypass: Fraction  # share of crops that reach the decoder unquantized, once the codebooks have started
    audio_to_text: AudioToText | None = None
    start: str | None = None  # a tokenizer folder, or "nano", whose weights and codebooks go on learning


@dataclass(frozen=True, kw_only=True)
class Stage2(Training):
    """Decoder and vocoder against discriminators; encoder and codebooks stay."""

    name: ClassVar[str] = "stage2"
    discriminator_learning_rate: Rate
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
        """Reads a recipe; data paths are relative to the working directory. Raises RecipeError with one line."""
        try:
            values = read_json(path)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        try:
            return _parsed(values)
        except MimoError as error:
            raise RecipeError(f"{path}: {error}") from error


def _parsed(values: object) -> Recipe:
    """The recipe in parsed JSON. Raises RecipeError, and ModelError for the model."""
    known = ("model", "data", "stage1", "stage2")
    if not isinstance(values, dict) or not {"model", "data"} <= values.keys() <= set(known):
        got = ", ".join(values) if isinstance(values, dict) else shown(values)
        raise RecipeError(f"a recipe must have model, data, and stage1 or stage2 or both, got {got}")
    problems: list[str] = []
    model, data = (
        values[key] if isinstance(values[key], dict) else checked(key, dict, values[key], problems)
        for key in ("model", "data")
    )
    if data == {}:
        problems.append("data must have folders or manifests with their shares, got none")
    shares = {Path(k): checked(f"data.{k}", Positive, share, problems) for k, share in (data or {}).items()}
    stage1 = checked("stage1", Stage1 | None, values.get("stage1"), problems)
    stage2 = checked("stage2", Stage2 | None, values.get("stage2"), problems)
    if not problems:
        recipe = Recipe(TokenizerConfig.from_dict(model), shares, stage1, stage2)
        problems = _contradictions(recipe)
    if problems:
        raise RecipeError("; ".join(problems))
    return recipe


def _contradictions(recipe: Recipe) -> list[str]:
    """Values that are fine alone but not together."""
    model, problems = recipe.model, []

    def expect(fine: object, where: str, expected: str, got: object) -> None:
        if not fine:
            problems.append(f"{where} must be {expected}, got {shown(got)}")

    ours, theirs, kernel = model.stride_size, model.decoder_stride_size, model.decoder_kernel_size
    expect(model.kernel_size == 3, "model.kernel_size", "3, which keeps the frames of a crop", model.kernel_size)
    expect(ours == theirs, "model.decoder_stride_size", f"the encoder's stride_size, {ours}", theirs)
    expect(kernel >= theirs, "model.decoder_kernel_size", f"at least {theirs}, the stride", kernel)
    expect(recipe.stage1 or recipe.stage2, "stage1 or stage2", "given", None)
    foreign = {"stage1": ("adversarial", "feature_matching"), "stage2": ("audio_to_text", "commitment")}
    for name, stage in (("stage1", recipe.stage1), ("stage2", recipe.stage2)):
        if stage is None:
            continue
        starts = [weights.first_step for weights in stage.weights]
        ascending = starts[0] == 0 and starts == sorted(set(starts))
        expect(ascending, f"{name}.weights", "of first_step 0 and then ascending", starts)
        expect(stage.warmup <= stage.steps, f"{name}.warmup", f"at most steps, {stage.steps}", stage.warmup)
        for number, weights in enumerate(stage.weights):
            given = {key: value for key, value in asdict(weights).items() if key not in ("first_step", "commitment")}
            expect(any(given.values()), f"one of {name}.weights[{number}]'s {', '.join(given)}", "above 0", 0)
            for loss in foreign[name]:
                where = f"{name}.weights[{number}].{loss}"
                expect(not given.get(loss, weights.commitment), where, "0, as it belongs to the other stage", 1)
    if recipe.stage1:
        unquantized, continues = recipe.stage1.unquantized, recipe.stage1.start is not None
        expect(not (continues and unquantized), "stage1.unquantized", "0, as start has codebooks", unquantized)
        reader, weight = recipe.stage1.audio_to_text, max(w.audio_to_text for w in recipe.stage1.weights)
        expect(reader or not weight, "stage1.audio_to_text", f"an object of sizes, as its weight is {weight:g}", None)
        expect(not reader or weight, "a weight of stage1.audio_to_text", "above 0, as it has sizes", 0)
        if reader:
            where = "stage1.audio_to_text.width"
            expect(reader.width % (2 * reader.heads) == 0, where, f"even parts for {reader.heads} heads", reader.width)
    if recipe.stage2:
        samples = recipe.stage2.crop * model.stride_size * model.avg_pooler * model.hop_length
        shape = recipe.stage2.discriminators
        for kind, widest in (("periods", max(shape.periods)), ("windows", max(shape.windows))):
            expect(widest <= samples, f"stage2.discriminators.{kind}", f"at most a crop's {samples} samples", widest)
        for window in shape.windows:
            fine = 16 <= window <= 8192 and window % 2 == 0 and 30**13 % window == 0
            expected = "even numbers from 16 to 8192 without prime factors other than 2, 3 and 5"
            expect(fine, "stage2.discriminators.windows", expected, window)
    return problems
