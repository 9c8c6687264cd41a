"""`mimo-audio data ...`: runs the subject's own file, cli/data_SUBJECT.py."""

from argparse import Namespace
from importlib import import_module


def run(arguments: Namespace) -> int:
    """Runs the chosen subject and returns the exit status."""
    return import_module(f"mimo_audio.cli.data_{arguments.subject}").run(arguments)
