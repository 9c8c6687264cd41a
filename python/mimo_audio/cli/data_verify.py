"""`mimo-audio data verify`: whether token sets are whole."""

import sys
from argparse import Namespace

from mimo_audio.data.token_set import TokenSet


def run(arguments: Namespace) -> int:
    """Checks every recording's checksum and codes; returns 1 if one is damaged."""
    damaged = 0
    for folder in arguments.input:
        tokens = TokenSet(folder)
        problems = tokens.verify()
        for problem in problems:
            print(f"{folder}: {problem}", file=sys.stderr)
        damaged += len(problems)
        print(f"{folder}: {len(tokens) - len(problems)} of {len(tokens)} recordings are whole")
    return 1 if damaged else 0
