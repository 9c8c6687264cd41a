"""Which language model and which audio tokenizer belong together: where they are found, and whether they fit."""

from importlib.resources import files
from os import PathLike
from os.path import normpath
from pathlib import Path

from mimo_audio.errors import ModelError
from mimo_audio.files.schema import read_json
from mimo_audio.lm.config import LanguageModelConfig
from mimo_audio.released import hub
from mimo_audio.released.config import dashed
from mimo_audio.tokenizer.config import TokenizerConfig

FRAME_RATE = 25.0  # code frames per second that a language model is trained on (MiMo-Audio report, section 2.1)
TOKENIZER_FOLDERS = ("tokenizer", "../MiMo-Audio-Tokenizer")  # looked for beside a language model
NANO_MODEL, NANO_TOKENIZER = (Path(str(files("mimo_audio") / "assets" / name)) for name in ("nano_lm", "nano"))


def find_model(model: str | PathLike[str]) -> Path:
    """The folder of a language model: the given one, nano, which ships, or one in the hub cache. Raises ModelError."""
    return NANO_MODEL if model == "nano" else hub.find_folder(model, "language model")


def find_tokenizer(model: Path, tokenizer: str | PathLike[str] | None) -> Path:
    """The folder of the audio tokenizer: the given one ("nano": the one that ships), or one beside the language model.

    A language model in the hub cache takes the released tokenizer from there.

    The nano tokenizer is taken unasked for the nano language model only: its codes have the sizes of the released one's
    and another meaning. Raises ModelError.
    """
    if tokenizer is not None:
        return NANO_TOKENIZER if tokenizer == "nano" else hub.find_folder(tokenizer, "audio tokenizer")
    if model == NANO_MODEL:
        return NANO_TOKENIZER
    places = [model.resolve() / folder for folder in TOKENIZER_FOLDERS]
    for path in places:
        if is_model(path):
            return path
    if model.parent.name == "snapshots" and (snapshot := hub.cached(hub.TOKENIZER)):  # the model is in the cache too
        return snapshot
    raise ModelError(
        f"no audio tokenizer at {' or '.join(map(str, map(normpath, places)))}: give the folder of {model.name}'s "
        "as tokenizer (--tokenizer)"
    )


def is_model(folder: Path) -> bool:
    """Whether the folder holds a model of either kind."""
    return (folder / "config.json").is_file()


def is_language_model(folder: Path) -> bool:
    """Whether the folder is meant as a language model, readable or not."""
    try:
        config = read_json(folder / "config.json")
    except ValueError:
        return False
    return isinstance(config, dict) and "num_hidden_layers" in config


def check_pair(language: LanguageModelConfig, tokenizer: TokenizerConfig) -> None:
    """Raises ModelError, which lists all differences, unless the tokenizer makes the codes that the model reads."""
    sizes = [size - 1 for size in language.speech_vocab_size]
    theirs = list(tokenizer.codebook_size[: language.audio_channels])
    problems = []
    if theirs != sizes:
        problems.append(f"codebooks of {dashed(theirs)} entries, expected {dashed(sizes)}")
    if tokenizer.frame_rate != FRAME_RATE:
        problems.append(f"{tokenizer.frame_rate:g} frames per second, expected {FRAME_RATE:g}")
    if list(language.speech_zeroemb_idx) != sizes:
        problems.append(f"empty codes {dashed(language.speech_zeroemb_idx)}, expected one behind each codebook")
    if problems:
        raise ModelError("the audio tokenizer is not that of the language model: " + "; ".join(problems))
