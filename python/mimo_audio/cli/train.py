"""`mimo-audio train`: a recipe's training runs, and text tokenizers."""

from argparse import Namespace

from mimo_audio.device import choose_device
from mimo_audio.errors import MimoError

REPEATS = 100  # of what every prompt of a task holds, so that it becomes a few ids


def run(arguments: Namespace) -> int:
    """Trains, or describes the run, and returns the exit status."""
    if arguments.subject == "text":
        _text(arguments)
        return 0
    if not arguments.dry_run and arguments.out is None:
        raise MimoError("--out: expected a folder for the run, got none")
    (_tokenizer if arguments.subject == "tokenizer" else _language_model)(arguments, choose_device(arguments.device))
    return 0


def _tokenizer(arguments: Namespace, device: str) -> None:
    from mimo_audio.train.dry_run import describe
    from mimo_audio.train.recipe import Recipe
    from mimo_audio.train.tokenizer import train

    recipe = Recipe.load(arguments.config)
    if arguments.dry_run:
        print(describe(recipe, device))
    else:
        train(recipe, arguments.out, arguments.resume, arguments.start, device)


def _language_model(arguments: Namespace, device: str) -> None:
    from mimo_audio.train.lm import train
    from mimo_audio.train.lm_dry_run import Cluster, describe
    from mimo_audio.train.lm_recipe import LanguageModelRecipe

    recipe = LanguageModelRecipe.load(arguments.config)
    if arguments.dry_run:
        print(describe(recipe, Cluster(arguments.gpus, arguments.gpu, arguments.gpu_memory)))
    else:
        train(recipe, arguments.out, arguments.resume, device)


def _text(arguments: Namespace) -> None:
    from mimo_audio.prompts.tasks import TEMPLATES
    from mimo_audio.train.text_tokenizer import texts_of, train_text_tokenizer

    texts = [text for manifest in arguments.input for text in texts_of(manifest)]
    tokenizer = train_text_tokenizer(texts + TEMPLATES * REPEATS, arguments.size, arguments.out, arguments.force)
    words = sum(len(text.split()) for text in texts)
    ids = sum(len(tokenizer.encode(text, specials=False)) for text in texts)
    print(f"{arguments.out}: {tokenizer.size} ids from {len(texts)} texts, {ids / max(words, 1):.2f} a word")
