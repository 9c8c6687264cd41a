"""`mimo-audio train`: a recipe's training runs."""

from argparse import Namespace

from mimo_audio.device import choose_device
from mimo_audio.errors import MimoError
from mimo_audio.train.dry_run import describe
from mimo_audio.train.recipe import Recipe
from mimo_audio.train.tokenizer import train


def run(arguments: Namespace) -> int:
    """Trains, or describes the run, and returns the exit status."""
    recipe, device = Recipe.load(arguments.config), choose_device(arguments.device)
    if arguments.dry_run:
        print(describe(recipe, device))
        return 0
    if arguments.out is None:
        raise MimoError("--out: expected a folder for the run, got none")
    train(recipe, arguments.out, arguments.resume, arguments.start, device)
    return 0
