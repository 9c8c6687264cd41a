"""Pieces that the arguments of several commands have in common. Imports nothing heavy."""

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def command(commands: Commands, name: str, summary: str, details: str, *examples: str) -> argparse.ArgumentParser:
    """Adds a command; `details` follow the summary in its help."""
    lines = "\n".join(line.strip() for line in details.strip().splitlines())
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{lines}".strip(),
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument("-v", "--verbose", action="store_true", help="say what is done, and where an error comes from")
    noise.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes, errors only")
    return parser


def paths(parser: argparse.ArgumentParser, source: str, target: str) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help=source)
    parser.add_argument("output", type=Path, metavar="OUTPUT", help=f"{target} to write")
    parser.add_argument("--force", action="store_true", help="overwrite what exists")


def existing(parser: argparse.ArgumentParser) -> None:
    """What happens to results that are there, of commands that work on whole folders."""
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--force", action="store_true", help="overwrite what exists")
    mode.add_argument(
        "--skip-existing", action="store_true", help="leave out what has a result: go on where it stopped"
    )


def model(
    parser: argparse.ArgumentParser,
    default: str | None = "nano",
    kinds: str = "tokenizer folder (config.json, model.safetensors) or name in the local hub cache",
) -> None:
    text = f"{kinds}, or nano, the small one that ships" + (f" (default: {default})" if default else "")
    parser.add_argument("--model", default=default, metavar="MODEL", help=text)
    arithmetic(parser, "float32", "bfloat16")


def arithmetic(parser: argparse._ActionsContainer, *dtypes: str) -> None:
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes the GPU if there is one (default)",
    )
    parser.add_argument("--dtype", choices=dtypes, help="arithmetic (default: float32 on the CPU, bfloat16 on a GPU)")


def n_q(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--n-q", type=positive, metavar="N", help="use the first N codebooks only (default: all there are)"
    )


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def numbers(text: str) -> tuple[int, ...]:
    values = tuple(map(int, text.split(",")))
    if min(values) < 0:
        raise ValueError
    return values


numbers.__name__ = "list of numbers from 0"
positive.__name__ = "positive number"  # argparse names it in "invalid positive number value"
