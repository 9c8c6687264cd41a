"""`mimo-audio roundtrip`: audio to tokens to audio, measured."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from mimo_audio.cli import batch, standard
from mimo_audio.cli.codec import Codec, Stopwatch, load, progress, read_blocks
from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import MEL_RATE, Wave, bitrate
from mimo_audio.evaluate.peers import Peer
from mimo_audio.evaluate.plot import PLOT_SECONDS, plot_mels, require_matplotlib
from mimo_audio.evaluate.quality import PIECE_SECONDS, measure
from mimo_audio.evaluate.report import RoundTrip, mean_record, table
from mimo_audio.files import audio
from mimo_audio.files.output import OutputError, atomic_output, check_output
from mimo_audio.files.tokens import Tokens


@standard.streams("input", target=".wav")
def run(arguments: Namespace) -> int:
    """Round-trips a file or a folder, prints the table, and returns the exit status."""
    is_folder = os.path.isdir(arguments.input)
    jobs = batch.plan(arguments.input, arguments.output, batch.AUDIO_SUFFIXES, ".wav")
    if not is_folder:
        _check_distinct(arguments)
    if arguments.json:
        check_output(arguments.json, arguments.force)
    if arguments.plot:
        require_matplotlib()
        if not is_folder:
            check_png(arguments.plot, arguments.force)
    codec = load(arguments)
    codec.warm_up()

    def round_trip(job: batch.Job) -> RoundTrip:
        audio.check_writable_format(job.target)
        picture = _picture(job, arguments)
        if picture:
            check_output(picture, arguments.force)
        tokens = codec.encode(job.source)
        trip = reconstruct(codec, tokens, job.source, job.target, arguments.force)
        if picture:
            draw(picture, trip, arguments.force)
        return trip

    outcome = batch.run(jobs, is_folder, arguments.force, round_trip)
    if outcome.results:
        print(table(outcome.results), file=sys.stderr if standard.is_output(arguments.output) else sys.stdout)
    if arguments.json:
        record = {
            "model": codec.model,
            "device": codec.tokenizer.device.type,
            "dtype": codec.dtype,
            "n_q": codec.n_q or len(codec.sizes),
            "files": [
                trip.record() | {"input": standard.name(trip.input), "output": standard.name(trip.output)}
                for trip in outcome.results
            ],
            "mean": mean_record(outcome.results),
            "failed": outcome.failures,
        }
        with atomic_output(arguments.json, arguments.force) as partial:
            partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return outcome.exit_status()


def reconstruct(codec: Codec, tokens: Tokens, source: Path, target: Path, force: bool) -> RoundTrip:
    """Decodes the tokens of `source`, that were encoded just before, into `target`, and measures the result."""
    audio.write(target, codec.decode(tokens), codec.sample_rate, force)
    seconds = tokens.samples / tokens.sample_rate
    kbit_per_s = bitrate(tokens.codebook_sizes[: len(tokens.codes)], tokens.frame_rate)
    return _measured(source, target, seconds, kbit_per_s, codec.watch.seconds)


def reconstruct_by_peer(peer: Peer, source: Path, target: Path, force: bool) -> RoundTrip:
    """The same by another codec, at its own sample rate."""
    wave, watch = audio.read(source, peer.sample_rate), Stopwatch(peer.model.device)
    audio.write(target, watch.timed(peer.reconstruct(wave)), peer.sample_rate, force)
    return _measured(source, target, len(wave) / peer.sample_rate, peer.kbit_per_s, watch.seconds)


def _measured(source: Path, target: Path, seconds: float, kbit_per_s: float, busy_seconds: float) -> RoundTrip:
    return RoundTrip(
        input=str(source),
        output=str(target),
        seconds=seconds,
        kbit_per_s=kbit_per_s,
        real_time_factor=busy_seconds / seconds,
        quality=measure(_pieces(source, target, seconds), MEL_RATE),
    )


def _check_distinct(arguments: Namespace) -> None:
    """Raises OutputError if --json or --plot names the input, the output or each other."""
    taken = {os.path.realpath(path) for path in (arguments.input, arguments.output)}
    for option in ("json", "plot"):
        path = getattr(arguments, option)
        if path and os.path.realpath(path) in taken:
            raise OutputError(f"--{option}: expected a file of its own, got {path} once more")
        taken.add(os.path.realpath(path or arguments.input))


def _picture(job: batch.Job, arguments: Namespace) -> Path | None:
    """Where the picture of this file goes: --plot, or for a folder the same structure in --plot."""
    if not arguments.plot or job.target == arguments.output:
        return arguments.plot
    return arguments.plot / job.target.relative_to(arguments.output).with_suffix(".png")


def start(path: Path, sample_rate: int, seconds: int) -> Tensor:
    """The first seconds of an audio file, [N] at `sample_rate`. Raises AudioError."""
    return next(audio.regroup(read_blocks(path, sample_rate), seconds * sample_rate))


def check_png(path: Path, force: bool) -> None:
    """Raises MimoError unless a PNG file can be written there."""
    if path.suffix.lower() != ".png":
        raise MimoError(f"--plot: expected a name that ends in .png, got {path}")
    check_output(path, force)


def draw(path: Path, trip: RoundTrip, force: bool) -> None:
    """Writes the picture of a round trip's mels (of its first 30 s)."""
    original, decoded = (start(Path(file), MEL_RATE, PLOT_SECONDS).numpy() for file in (trip.input, trip.output))
    with atomic_output(path, force) as partial:
        plot_mels(partial, original, decoded, f"{Path(trip.input).name}: {trip.kbit_per_s:.2f} kbit/s")


def _pieces(source: Path, target: Path, seconds: float) -> Iterator[tuple[Wave, Wave]]:
    """(original, decoded) pieces of both files at 24 kHz."""
    size = round(PIECE_SECONDS * MEL_RATE)
    original, decoded = (audio.regroup(read_blocks(path, MEL_RATE), size) for path in (source, target))
    original = progress("measure", original, MEL_RATE, round(seconds * MEL_RATE))
    for one, other in zip(original, decoded, strict=False):
        yield one.numpy(), other.numpy()
