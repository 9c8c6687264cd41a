"""Arguments and help texts of the command line. Imports nothing heavy."""

import argparse
from pathlib import Path

DESCRIPTION = "MiMo-Audio on this machine: sound to tokens and back."
EXAMPLES = """\
examples:
  mimo-audio demo                              hear what the tokenizer does to a voice
  mimo-audio encode talk.mp3 talk.tokens       sound to tokens (1.55 kbit/s)
  mimo-audio decode talk.tokens talk.wav       and back
  mimo-audio roundtrip talk.wav heard.wav      both, with scores
  mimo-audio encode recordings/ tokens/        a whole folder, same structure
"""
FILES = """
INPUT is a file in any format that libsndfile reads (wav, flac, ogg, mp3, ...), at any sample rate, with any number
of channels (mixed down), of any length; or a folder, and then OUTPUT is a folder that gets the same structure. Of a
folder, a bad file does not stop the others: it is reported at the end, with exit status 2. Outputs appear whole or
not at all.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `mimo-audio`; the chosen command's name is in `command`."""
    parser = argparse.ArgumentParser(
        prog="mimo-audio",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    encode = _command(
        commands, "encode", "sound to tokens", FILES,
        "mimo-audio encode talk.mp3 talk.tokens", "mimo-audio encode --n-q 4 recordings/ tokens/",
    )  # fmt: skip
    _paths(encode, "audio file or folder", ".tokens file or folder")
    _model(encode)
    _n_q(encode)

    decode = _command(
        commands, "decode", "tokens to sound",
        """
        OUTPUT is 16-bit PCM in the format that its suffix names (.wav, .flac), mono, as long as the recording was.
        Tokens can be decoded only by the tokenizer that made them. Of a folder, every .tokens file becomes a .wav.
        """,
        "mimo-audio decode talk.tokens talk.wav", "mimo-audio decode tokens/ sounds/",
    )  # fmt: skip
    _paths(decode, ".tokens file or folder", "audio file or folder")
    _model(decode)
    _n_q(decode)

    roundtrip = _command(
        commands, "roundtrip", "sound to tokens to sound, with scores",
        FILES + """
Prints: bit rate of the tokens; PESQ-NB and PESQ-WB (1 to 4.5) and STOI (0 to 1), higher is better; mel distance (mean
absolute difference of the log-mel spectrograms) and F0 error (median relative error of the voice's pitch), lower is
better; real-time factor: seconds of encoding + decoding per second of sound.
""",
        "mimo-audio roundtrip talk.wav heard.wav --plot mels.png --json scores.json",
    )  # fmt: skip
    _paths(roundtrip, "audio file or folder", "audio file or folder")
    _model(roundtrip)
    _n_q(roundtrip)
    roundtrip.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw both mel spectrograms (for a folder: a folder of pictures)"
    )
    roundtrip.add_argument("--json", type=Path, metavar="FILE", help="write the scores as JSON")

    demo = _command(
        commands, "demo", "round-trip two shipped clips, and your recording",
        """
        Encodes and decodes two short clips that ship with the package (a synthetic voice and a person's) and, if given,
        the first 30 seconds of your own recording; prints the scores and where to find the sounds and pictures.
        """,
        "mimo-audio demo", "mimo-audio demo my-voice.wav --out listen/",
    )  # fmt: skip
    demo.add_argument("recording", type=Path, nargs="?", metavar="RECORDING", help="your own audio file")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("demo-output"),
        metavar="FOLDER",
        help="where results go (default: %(default)s)",
    )
    demo.add_argument("--force", action="store_true", help="overwrite results of an earlier run")
    _model(demo)

    info = _command(
        commands,
        "info",
        "versions, native build, device, model",
        "",
        "mimo-audio info",
        "mimo-audio info --model MiMo-Audio-Tokenizer/",
    )
    _model(info, default=None)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    details: str,
    *examples: str,
) -> argparse.ArgumentParser:
    lines = "\n".join(line.strip() for line in details.strip().splitlines())
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{lines}".strip(),
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _paths(parser: argparse.ArgumentParser, source: str, target: str) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help=source)
    parser.add_argument("output", type=Path, metavar="OUTPUT", help=f"{target} to write")
    parser.add_argument("--force", action="store_true", help="overwrite what exists")


def _model(parser: argparse.ArgumentParser, default: str | None = "nano") -> None:
    text = "tokenizer folder (config.json, model.safetensors), or nano, the small one that ships"
    text += f" (default: {default})" if default else ""
    parser.add_argument("--model", default=default, metavar="MODEL", help=text)
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes the GPU if there is one (default)",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="arithmetic (default: float32 on the CPU, bfloat16 on a GPU)"
    )  # fmt: skip


def _n_q(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--n-q", type=_positive, metavar="N", help="use the first N codebooks only (default: all there are)"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive number"  # argparse names it in "invalid positive number value"
