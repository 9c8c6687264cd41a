"""Arguments and help texts of the commands that need the audio tokenizer only. Imports nothing heavy."""

from pathlib import Path

from mimo_audio.cli.parsing import Commands, command, model, n_q, paths
from mimo_audio.cli.stream_arguments import add_paths_or_stream

FILES = """
INPUT is a file in any format that libsndfile reads (wav, flac, ogg, mp3, ...), at any sample rate, with any number
of channels (mixed down), of any length; or a folder, and then OUTPUT is a folder that gets the same structure. Of a
folder, a bad file does not stop the others: it is reported at the end, with exit status 2. Outputs appear whole or
not at all. A single file may be -, standard input or output.
"""


def add_tokenizer_commands(commands: Commands) -> None:
    """encode, decode, roundtrip, demo, info."""
    encode = command(
        commands, "encode", "sound to tokens", FILES,
        "mimo-audio encode talk.mp3 talk.tokens", "mimo-audio encode --n-q 4 recordings/ tokens/",
        "curl -s http://localhost/talk.mp3 | mimo-audio encode - talk.tokens",
        "arecord -f S16_LE -r 24000 | mimo-audio encode --stream | mimo-audio decode --stream wav | aplay",
    )  # fmt: skip
    add_paths_or_stream(
        encode,
        "audio file or folder",
        ".tokens file or folder",
        ("pcm",),
        "16-bit PCM (mono, at the model's rate) on stdin, lines of codes on stdout, while it lasts",
    )
    model(encode)
    n_q(encode)

    decode = command(
        commands, "decode", "tokens to sound",
        """
        OUTPUT is mono, in the format that its suffix names (.wav, .flac: 16-bit; .mp3, .ogg, .opus), as long as the
        recording was.
        Tokens can be decoded only by the tokenizer that made them. Of a folder, every .tokens file becomes a .wav.
        INPUT - is standard input, OUTPUT - a WAV on standard output.
        """,
        "mimo-audio decode talk.tokens talk.wav", "mimo-audio decode --skip-existing tokens/ sounds/",
        "mimo-audio decode --stream wav < talk.tokens | aplay",
    )  # fmt: skip
    add_paths_or_stream(
        decode,
        ".tokens file or folder",
        "audio file or folder",
        ("pcm", "wav"),
        "codes on stdin (.tokens, or a line per frame), 16-bit PCM on stdout as they arrive, bare (default) or as WAV",
    )
    model(decode)
    n_q(decode)

    roundtrip = command(
        commands, "roundtrip", "sound to tokens to sound, with scores",
        FILES + """
Prints: bit rate of the tokens; PESQ-NB and PESQ-WB (1 to 4.5) and STOI (0 to 1), higher is better; mel distance (mean
absolute difference of the log-mel spectrograms) and F0 error (median relative error of the voice's pitch), lower is
better; real-time factor: seconds of encoding + decoding per second of sound.
""",
        "mimo-audio roundtrip talk.wav heard.wav --plot mels.png --json scores.json",
    )  # fmt: skip
    paths(roundtrip, "audio file or folder", "audio file or folder")
    model(roundtrip)
    n_q(roundtrip)
    roundtrip.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw both mel spectrograms (for a folder: a folder of pictures)"
    )
    roundtrip.add_argument("--json", type=Path, metavar="FILE", help="write the scores as JSON")

    demo = command(
        commands, "demo", "nano speaks, listens, and round-trips clips and your recording",
        """
        The language model that ships says a sentence in its own voice and in that of a recording, and writes down what
        it hears. The tokenizer encodes and decodes two short clips (a synthetic voice and a person's) and, if given,
        the first 30 seconds of your own recording, in whose voice the sentence is said, too. Prints what came of it,
        the scores, and where to find the sounds and pictures.
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
    model(demo)

    info = command(
        commands,
        "info",
        "versions, native build, device, model",
        "",
        "mimo-audio info",
        "mimo-audio info --model MiMo-Audio-7B-Instruct/",
    )
    model(info, default=None, kinds="folder of a tokenizer or a language model")
