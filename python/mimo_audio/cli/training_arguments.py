"""Arguments and help texts of `mimo-audio train` and `mimo-audio eval`. Imports nothing heavy."""

import argparse
from pathlib import Path

from mimo_audio.cli.parsing import Commands, command, model, n_q, positive


def add_training_commands(commands: Commands) -> None:
    """train tokenizer."""
    train = commands.add_parser("train", help="train a tokenizer", description="Train a tokenizer by a recipe.")
    subjects = train.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    tokenizer = command(
        subjects, "tokenizer", "train the audio tokenizer, both stages",
        """
        A recipe (JSON; see recipes/) says the model's sizes, where the audio lies, and how each stage trains. Stage 1
        learns the codes from scratch; stage 2 trains decoder and vocoder against discriminators. OUT/stage1 and
        OUT/stage2 get a checkpoint, log.jsonl, curves and samples for TensorBoard, and model/, a tokenizer folder for
        --model. Ctrl-C writes a checkpoint and stops, at once if pressed again. Under torchrun, the processes share the
        parts of each step.
        """,
        "mimo-audio train tokenizer --config recipes/tokenizer-nano.json --out runs/nano",
        "mimo-audio train tokenizer --config recipes/tokenizer-nano.json --out runs/nano --resume",
        "mimo-audio train tokenizer --config recipes/tokenizer-nano.json --out runs/nano2 --start nano",
        "mimo-audio train tokenizer --config recipes/tokenizer-full-stage1.json --dry-run",
        "torchrun --nproc-per-node 8 -m mimo_audio train tokenizer --config my.json --out runs/mine",
    )  # fmt: skip
    tokenizer.add_argument("--config", type=Path, required=True, metavar="RECIPE", help="recipe (JSON)")
    tokenizer.add_argument("--out", type=Path, metavar="OUT", help="folder of the run")
    tokenizer.add_argument("--start", metavar="MODEL", help="begin at stage 2, with this tokenizer folder, or nano")
    mode: argparse._MutuallyExclusiveGroup = tokenizer.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="continue the run in OUT")
    mode.add_argument("--dry-run", action="store_true", help="say sizes, memory and speed; train nothing")
    tokenizer.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPU if there is one (default)"
    )


def add_evaluation_commands(commands: Commands) -> None:
    """eval tokenizer."""
    evaluate = commands.add_parser("eval", help="measure a tokenizer", description="Measure a tokenizer on recordings.")
    subjects = evaluate.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    tokenizer = command(
        subjects, "tokenizer", "scores of the audio tokenizer on sets of recordings",
        """
        A SET is a folder of audio files, or a manifest: JSON lines with "audio" (relative to it) and perhaps "text".
        OUT gets scores.json, pictures, and every resynthesis. Scores are those of `roundtrip`; with a recogniser also
        its word error rate on originals and on resynthesis (where there is a text), with a speaker judge the cosine of
        both embeddings. Either is a function of (wave [N] float32, sample rate) given as MODULE:FUNCTION.
        """,
        "mimo-audio eval tokenizer recordings/ --out scores",
        "mimo-audio eval tokenizer held_out/manifest.jsonl --out scores --model runs/nano/stage2/model "
        "--recogniser mimo_audio.evaluate.recognisers:digits",
    )  # fmt: skip
    tokenizer.add_argument("input", type=Path, nargs="+", metavar="SET", help="folder or manifest")
    tokenizer.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder for the results")
    tokenizer.add_argument("--force", action="store_true", help="overwrite what exists")
    tokenizer.add_argument("--limit", type=positive, metavar="N", help="the first N recordings of each set only")
    tokenizer.add_argument("--recogniser", metavar="JUDGE", help="speech recogniser, MODULE:FUNCTION -> text")
    tokenizer.add_argument("--speaker", metavar="JUDGE", help="speaker embedding, MODULE:FUNCTION -> [D]")
    model(tokenizer)
    n_q(tokenizer)
