"""The parser of the command line: what it is for, and its commands. Imports nothing heavy."""

import argparse
from pathlib import Path
from typing import Any

from mimo_audio.cli.data_arguments import add_data_commands
from mimo_audio.cli.language_arguments import add_language_commands
from mimo_audio.cli.serving_arguments import add_serving_commands
from mimo_audio.cli.tokenizer_arguments import add_tokenizer_commands
from mimo_audio.cli.training_arguments import add_evaluation_commands, add_training_commands

DESCRIPTION = "MiMo-Audio on this machine: text and sound in, text and sound out."
EXAMPLES = """\
examples:
  mimo-audio tts "Good morning" -o morning.wav      speak
  mimo-audio asr talk.mp3                           write down what is said
  mimo-audio chat --speech answers/                 talk, in words or recordings
  mimo-audio understand talk.mp3 "Who is angry?"    ask about a recording
  mimo-audio serve                                  a page to talk to, and OpenAI's audio endpoints
  mimo-audio demo                                   hear what the tokenizer does to a voice
  mimo-audio encode talk.mp3 talk.tokens            sound to tokens (1.55 kbit/s), decode leads back
  mimo-audio roundtrip talk.wav heard.wav           both, with scores
  mimo-audio data speak texts.txt --voices kokoro --out corpus/   speech to train on
  mimo-audio train tokenizer --config recipe.json   a tokenizer of your own
  mimo-audio train lm --config recipe.json          a language model of your own
  mimo-audio finetune --model M --data D --out O    one that exists, on your recordings
  mimo-audio eval tokenizer recordings/ --out out/  how good one is
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `mimo-audio`; the chosen command's name is in `command`."""
    parser = argparse.ArgumentParser(
        prog="mimo-audio",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument(
        "--completion",
        action=_Completion,
        choices=("bash", "zsh", "tcsh"),
        help="print a script that completes commands, options and files in this shell, and exit (pip install shtab)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_language_commands(commands)
    add_serving_commands(commands)
    add_tokenizer_commands(commands)
    add_data_commands(commands)
    add_training_commands(commands)
    add_evaluation_commands(commands)
    return parser


class _Completion(argparse.Action):
    """shtab makes a static script, so that completing starts no Python; it is needed for making it only."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, __: str | None = None) -> None:
        try:
            import shtab
        except ModuleNotFoundError:
            parser.exit(2, f"{parser.prog}: needs the package shtab: pip install shtab\n")
        _complete_files(parser, shtab.FILE)
        print(shtab.complete(parser, shell))
        parser.exit()


def _complete_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Lets every argument that is a path complete to files and folders."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action.choices.values():
                _complete_files(choice, files)
        elif action.type is Path or action.dest in ("model", "tokenizer", "turns"):
            action.complete = files  # type: ignore[attr-defined]  # what shtab looks for


class _Version(argparse.Action):
    """Looked up only when asked for, as that takes longer than --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(parser.prog, version("mimo-audio-native"))
        except PackageNotFoundError:  # run from its sources
            print(parser.prog, "unknown")
        parser.exit()
