"""Arguments and help texts of `mimo-audio train`. Imports nothing heavy."""

import argparse
from pathlib import Path

from mimo_audio.cli.parsing import Commands, command


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
        --model. Ctrl-C writes a checkpoint and stops. Under torchrun, the processes share the parts of each step.
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
