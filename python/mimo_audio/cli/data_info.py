"""`mimo-audio data info`: what is in token sets."""

from argparse import Namespace
from collections import Counter

from mimo_audio.data.token_set import TokenSet


def run(arguments: Namespace) -> int:
    """Prints sizes, rows by task, speakers and languages of every set, and returns the exit status."""
    for folder in arguments.input:
        tokens = TokenSet(folder)
        about = tokens.description
        print(f"{folder}: {len(tokens)} recordings, {tokens.seconds / 3600:.2f} h, {len(tokens.rows)} rows")
        sizes = "-".join(map(str, about.codebook_sizes))
        print(f"  tokenizer  {about.model} {about.fingerprint}, {about.frame_rate:g} Hz, codebooks of {sizes}")
        for name in ("task", "language", "speaker"):
            found = Counter(row[name] for row in tokens.rows if name in row)
            common = ", ".join(f"{value} {count}" for value, count in found.most_common(8))
            if found:
                print(f"  {name + 's':9}  {len(found)}: {common}{', ..' if len(found) > 8 else ''}")
    return 0
