"""`mimo-audio demo`: nano speaks and listens, and round-trips the shipped clips and the user's recording."""

from argparse import Namespace
from importlib.resources import as_file, files
from pathlib import Path

from mimo_audio.cli.codec import Codec, load
from mimo_audio.cli.demo_language import SENTENCE, Showcase
from mimo_audio.cli.roundtrip import draw, reconstruct, start
from mimo_audio.errors import MimoError
from mimo_audio.evaluate.plot import require_matplotlib
from mimo_audio.evaluate.report import RoundTrip, table
from mimo_audio.files import audio
from mimo_audio.files.output import check_output
from mimo_audio.files.tokens import write_tokens

RECORDING_SECONDS = 30  # of the user's recording: the demo is done within a minute
CLIPS = ("sentence", "digits")  # a synthetic voice, a person's
KINDS = ("original.wav", "decoded.wav", "tokens", "png")
VOICE = "voice.flac"  # a shipped recording
SPOKEN = ("spoken.wav", "spoken-in-a-voice.wav", "spoken-in-your-voice.wav")  # what nano says


def run(arguments: Namespace) -> int:
    """Runs the demo, prints the scores and where the results are, and returns the exit status."""
    names = [*CLIPS, "yours"] if arguments.recording else [*CLIPS]
    for name in names:
        for kind in KINDS:
            check_output(arguments.out / f"{name}.{kind}", arguments.force)
    for name in SPOKEN:
        check_output(arguments.out / name, arguments.force)
    codec = load(arguments)
    codec.warm_up()
    with as_file(files("mimo_audio") / "assets") as assets:
        sources = {name: assets / f"{name}.wav" for name in CLIPS}
        if arguments.recording:
            sources["yours"] = arguments.recording
        for name, source in reversed(sources.items()):  # a bad recording is noticed before anything is written
            wave = start(source, codec.sample_rate, RECORDING_SECONDS)
            audio.write(arguments.out / f"{name}.original.wav", wave, codec.sample_rate, arguments.force)
    trips = [_round_trip(codec, arguments.out / name, arguments.force) for name in names]
    print(table(trips))
    spoken = _language(arguments, sources.get("yours"))
    print(f"\nIn {arguments.out.resolve()}:")
    for name in names:
        print("  listen and compare:", f"{name}.original.wav", f"{name}.decoded.wav")
        print("  the tokens between:", f"{name}.tokens")
    for name in spoken:
        print("  what nano says:", name)
    try:
        require_matplotlib()
    except MimoError as error:
        print(" ", error)
        return 0
    for name, trip in zip(names, trips, strict=True):
        draw(arguments.out / f"{name}.png", trip, arguments.force)
        print("  both mel spectrograms:", f"{name}.png")
    return 0


def _language(arguments: Namespace, recording: Path | None) -> list[str]:
    """The nano language model at work, as a table; returns the names of the sounds it made."""
    if arguments.model != "nano":  # another tokenizer's codes mean nothing to it
        return []
    from mimo_audio.tasks.model import load as load_model

    show = Showcase(load_model(device=arguments.device), arguments.out)
    plain, voiced, yours = SPOKEN
    with as_file(files("mimo_audio") / "assets") as assets:
        show.speak("speak", SENTENCE, plain)
        show.speak(f"speak as {VOICE}", SENTENCE, voiced, assets / VOICE)
        show.transcribe("transcribe", assets / VOICE)
    if recording:
        show.speak("speak as you", SENTENCE, yours, arguments.out / "yours.original.wav")
    print(f"\n{show.table()}")
    return [line.file for line in show.lines if line.file]


def _round_trip(codec: Codec, path: Path, force: bool) -> RoundTrip:
    """PATH.original.wav to PATH.tokens to PATH.decoded.wav."""
    original, decoded = (path.with_name(f"{path.name}.{kind}.wav") for kind in ("original", "decoded"))
    tokens = codec.encode(original)
    write_tokens(path.with_name(f"{path.name}.tokens"), tokens, force)
    return reconstruct(codec, tokens, original, decoded, force)
