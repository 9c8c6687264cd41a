"""Arguments of the commands that can also stream through pipes: encode and decode. Imports nothing heavy."""

import argparse
from pathlib import Path

from mimo_audio.cli.parsing import existing


def add_paths_or_stream(
    parser: argparse.ArgumentParser, source: str, target: str, formats: tuple[str, ...], stream: str
) -> None:
    """INPUT and OUTPUT, or --stream [FORMAT] (the first of `formats` is the default) with --look-ahead instead."""
    parser.add_argument("input", type=Path, nargs="?", metavar="INPUT", help=source)
    parser.add_argument("output", type=Path, nargs="?", metavar="OUTPUT", help=f"{target} to write")
    existing(parser)
    parser.add_argument(
        "--stream", nargs="?", choices=formats, const=formats[0], metavar="|".join(formats), help=stream
    )
    parser.add_argument(
        "--look-ahead", type=_count, metavar="N", help="with --stream: code frames (40 ms) to wait for, at least 0"
    )
    parser.set_defaults(refuse=parser.error)


def check(arguments: argparse.Namespace) -> None:
    """Ends the program with a usage error unless there are both paths, or a stream and no path."""
    paths = [path for path in (arguments.input, arguments.output) if path is not None]
    if arguments.stream and paths:
        arguments.refuse(f"--stream reads stdin and writes stdout, expected no INPUT and OUTPUT, got {paths[0]}")
    if not arguments.stream and len(paths) < 2:
        arguments.refuse("the following arguments are required: INPUT and OUTPUT, or --stream")
    if not arguments.stream and arguments.look_ahead is not None:
        arguments.refuse("--look-ahead: expected with --stream only")


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


_count.__name__ = "number of frames"  # argparse names it in "invalid number of frames value"
