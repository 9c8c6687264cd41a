"""`mimo-audio data merge`: several token sets as one."""

from argparse import Namespace

from mimo_audio.data.token_set import TokenSet, merge


def run(arguments: Namespace) -> int:
    """Merges and returns the exit status."""
    merged = merge([TokenSet(folder) for folder in arguments.input], arguments.out)
    print(f"{arguments.out}: {len(merged)} recordings, {merged.seconds / 3600:.2f} h, {len(merged.rows)} rows")
    return 0
