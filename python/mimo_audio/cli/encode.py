"""`mimo-audio encode`: audio files to .tokens files."""

from argparse import Namespace

from mimo_audio.cli import batch, standard, stream
from mimo_audio.cli.codec import load
from mimo_audio.cli.stream_arguments import check
from mimo_audio.files.tokens import write_tokens


@standard.streams("input", target=".tokens")
def run(arguments: Namespace) -> int:
    """Encodes a file, a folder or stdin and returns the exit status."""
    check(arguments)
    if arguments.stream:
        return stream.encode(arguments)
    jobs = batch.plan(arguments.input, arguments.output, batch.AUDIO_SUFFIXES, ".tokens")
    jobs = batch.unfinished(jobs, arguments.skip_existing)
    codec = load(arguments)

    def encode(job: batch.Job) -> None:
        write_tokens(job.target, codec.encode(job.source), arguments.force)

    return batch.run(jobs, arguments.input.is_dir(), arguments.force, encode).exit_status()
