"""Fine-tunes a model in the released layout on manifests or token sets (`mimo-audio finetune`)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mimo_audio.data.token_set import DESCRIPTION, TokenSet
from mimo_audio.errors import MimoError
from mimo_audio.lm import LanguageModelConfig
from mimo_audio.lm.losses import EMPTY_LOSS_WEIGHT
from mimo_audio.train.lm import train_one
from mimo_audio.train.lm_data import Data, SetOfTasks, TaskWeights, tasks_of
from mimo_audio.train.lm_recipe import LanguageModelRecipe, LearningRates, Stage
from mimo_audio.train.lora import Lora
from mimo_audio.train.tokenize import tokenize

TASKS = (  # of post-training (MiMo-Audio report, section 4), and in-context conversion
    *("asr", "tts", "instruct_tts", "audio_understanding", "spoken_dialogue", "speech_to_text_dialogue"),
    *("text_dialogue", "in_context_speech"),
)
FULL_RATES = LearningRates(patch_encoder=5e-5, backbone=1e-5, patch_decoder=5e-5)  # the report's table 3
LORA_RATE = 2e-4
TOKENS = "tokens"  # the set that manifests become, in the folder of the run


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be chosen of a fine-tuning; learning_rate None: the report's for all weights, 2e-4 for adapters.

    empty_loss_weight: of text labels that are <|empty|>, "now a patch". With the published weight a model that has not
    learned to speak learns it late.
    """

    steps: int = 500
    lora: Lora | None = None
    learning_rate: float | None = None
    rows: int = 1
    micro_batches: int = 4
    context: int = 2048
    precision: str = "bfloat16"
    seed: int = 0
    empty_loss_weight: float = EMPTY_LOSS_WEIGHT


def finetune(
    model: Path,
    tokenizer: Path,
    data: Sequence[Path],
    out: Path,
    settings: Settings,
    resume: bool = False,
    device: str = "cpu",
    workers: int = 1,
) -> None:
    """Leaves out/model. Manifests become a token set in `out` first, once. Raises MimoError.

    tokenizer: the folder of the audio tokenizer, to which out/model/tokenizer becomes a link.
    """
    config = LanguageModelConfig.load(model / "config.json")
    sets = [path for path in data if (path / DESCRIPTION).is_file()]
    if manifests := [path for path in data if path not in sets]:
        done = tokenize(manifests, out / TOKENS, str(tokenizer), config.audio_channels, device, workers)
        if done.failed:
            name, why = done.failed[0]
            more = f", and {len(done.failed) - 1} more" if len(done.failed) > 1 else ""
            raise MimoError(f"cannot use {name}: {why}{more}; nothing was trained")
        sets.append(out / TOKENS)
    stage = Stage(
        kind="post_training",
        seed=settings.seed,
        steps=settings.steps,
        rows=settings.rows,
        micro_batches=settings.micro_batches,
        context=min(settings.context, config.max_position_embeddings),
        learning_rates=rates(settings),
        schedule="cosine",
        warmup=0.03,
        weight_decay=0.0,
        precision=settings.precision,  # type: ignore[arg-type]
        lora=settings.lora,
        empty_loss_weight=settings.empty_loss_weight,
        data=Data(sets=tuple(parts(sets))),
        log_every=max(1, min(10, settings.steps // 10)),
        checkpoint_every=max(1, min(500, settings.steps)),
    )
    recipe = LanguageModelRecipe({"finetune": stage}, start=str(model))
    train_one(recipe, "finetune", out, resume, device)
    link = out / "model" / "tokenizer"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(tokenizer.resolve(), target_is_directory=True)


def rates(settings: Settings) -> LearningRates:
    """Of the three modules."""
    if settings.learning_rate is None and settings.lora is None:
        return FULL_RATES
    rate = settings.learning_rate or LORA_RATE
    return LearningRates(patch_encoder=rate, backbone=rate, patch_decoder=rate)


def parts(sets: Sequence[Path]) -> list[SetOfTasks]:
    """Every set with all the tasks that its rows can be samples of, by their number. Raises MimoError for none."""
    found = []
    for folder in sets:
        rows = [row for row in TokenSet(folder).rows if not row.get("held_out")]
        counts = Counter(task for row in rows for task in tasks_of(row) if task in TASKS)
        if not counts:
            raise MimoError(f"{folder}: expected rows for one of {', '.join(TASKS)}, got none")
        found.append(SetOfTasks(set=str(folder), tasks=TaskWeights(**{task: float(n) for task, n in counts.items()})))
    return found
