"""`mimo-audio decode`: .tokens files to audio files."""

from argparse import Namespace

from mimo_audio.cli import batch, standard, stream
from mimo_audio.cli.codec import load
from mimo_audio.cli.stream_arguments import check
from mimo_audio.files import audio
from mimo_audio.files.tokens import read_tokens


@standard.streams("input", target=".wav")
def run(arguments: Namespace) -> int:
    """Decodes a file, a folder or stdin and returns the exit status."""
    check(arguments)
    if arguments.stream:
        return stream.decode(arguments)
    jobs = batch.plan(arguments.input, arguments.output, batch.TOKENS_SUFFIXES, ".wav")
    jobs = batch.unfinished(jobs, arguments.skip_existing)
    codec = load(arguments)

    def decode(job: batch.Job) -> None:
        waves = codec.decode(read_tokens(job.source))
        audio.write(job.target, waves, codec.sample_rate, arguments.force)

    return batch.run(jobs, arguments.input.is_dir(), arguments.force, decode).exit_status()
