"""Arguments and help texts of the tasks of the language model. Imports nothing heavy."""

import argparse
from pathlib import Path

from mimo_audio.cli.parsing import Commands, arithmetic, command, existing, positive

RECORDINGS = "Recordings may have any format that libsndfile reads, any sample rate and any number of channels."
OUTPUT = (
    "OUTPUT is mono, in the format that its suffix names (.wav, .flac: 16-bit; .mp3, .ogg, .opus); it appears whole\n"
    "or not at all."
)


def add_language_commands(commands: Commands) -> None:
    """tts, asr, chat, understand, continue, convert, quantize."""
    tts = command(
        commands, "tts", "text to speech",
        f"""
        {OUTPUT}
        FILE - is standard input, OUTPUT - a WAV on standard output.
        Many texts run as one batch: FILE is a folder of .txt files, or a .jsonl with an object a line that has "text"
        and perhaps "voice" (a recording, relative to FILE), "style", "freeform", "seed" and "output". OUTPUT is then a
        folder and gets a .wav for each, by the name of its file, its "output" or the number of its line. A bad one does
        not stop the others: it is reported at the end, with exit status 2.
        """,
        'mimo-audio tts "Good morning!" -o morning.wav',
        'mimo-audio tts "Good morning!" --stream wav | aplay',
        "mimo-audio tts --text-file letter.txt --voice me.wav -o letter.wav",
        "mimo-audio tts --text-file requests.jsonl -o spoken/ --skip-existing",
        'mimo-audio tts "Good night" --style "whispering, slowly" -o night.wav',
        "fortune | mimo-audio tts --text-file - -o - | aplay",
        'mimo-audio tts --freeform "A tired man sighs: not again." -o sigh.wav',
    )  # fmt: skip
    tts.add_argument("text", nargs="?", metavar="TEXT", help="what is said")
    tts.add_argument("--text-file", type=Path, metavar="FILE", help="read it from a file (UTF-8); or many, see above")
    _output(tts)
    tts.add_argument("--voice", type=Path, metavar="AUDIO", help="a recording of the voice that speaks")
    manner = tts.add_mutually_exclusive_group()
    manner.add_argument("--style", metavar="TEXT", help="how it is said, in words")
    manner.add_argument("--freeform", action="store_true", help="TEXT itself says how and by whom")
    _common(tts, speech=True, folders=True)

    asr = command(
        commands, "asr", "speech to text",
        f"""
        Prints the transcript, or writes it to OUTPUT.
        {RECORDINGS}
        If INPUT is a folder, OUTPUT is one too and gets a .txt for every recording, in the same structure; or it is a
        .jsonl and gets a line for each. INPUT may also be a .jsonl with an object a line, {{"audio": "a.wav"}}, named
        relative to it, and perhaps "language"; other keys are kept, a "text" as "reference". They run as one batch, and
        a bad file does not stop the others: it is reported at the end, with exit status 2. INPUT - is standard input.
        """,
        "mimo-audio asr talk.mp3", "mimo-audio asr --language zh recordings/ transcripts/",
        "mimo-audio asr manifest.jsonl heard.jsonl --skip-existing",
    )  # fmt: skip
    asr.add_argument("input", type=Path, metavar="INPUT", help="audio file, folder, or .jsonl of requests")
    asr.add_argument("output", type=Path, nargs="?", metavar="OUTPUT", help="text file, folder or .jsonl to write")
    asr.add_argument("--language", choices=("en", "zh"), default="en", help="of the request (default: %(default)s)")
    _common(asr, folders=True)

    chat = command(
        commands, "chat", "talk with the model, in words or recordings",
        f"""
        Every TURN is what you say: words, or the name of an audio file; each is answered in turn. Without one, turns
        are read from standard input, a line each, and an end of file (Ctrl-D) ends the dialogue.
        {RECORDINGS}
        """,
        'mimo-audio chat "What is a patch?"', "mimo-audio chat question.wav --speech answers/ --voice her.wav",
        'mimo-audio chat --thinking "Is 91 a prime number?"', "mimo-audio chat --transcript talk.jsonl",
    )  # fmt: skip
    chat.add_argument("turns", nargs="*", metavar="TURN", help="words, or an audio file")
    chat.add_argument("--speech", type=Path, metavar="FOLDER", help="answer in speech too: answer-1.wav, ... in FOLDER")
    _stream(chat)
    chat.add_argument(
        "--voice", type=Path, metavar="AUDIO", help="a recording of the voice that answers (with --speech)"
    )
    chat.add_argument("--system", metavar="TEXT", help="how the model should behave (with --speech)")
    chat.add_argument("--thinking", action="store_true", help="think before every answer; thoughts go to stderr")
    chat.add_argument(
        "--transcript", type=Path, metavar="FILE", help="keep the dialogue in a file, a JSON object a line"
    )
    _common(chat, speech=True)

    understand = command(
        commands, "understand", "answer a question about a recording", RECORDINGS,
        'mimo-audio understand call.wav "What does the caller want?"',
        'mimo-audio understand street.flac "How many cars pass?" --thinking',
    )  # fmt: skip
    understand.add_argument("input", type=Path, metavar="INPUT", help="audio file")
    understand.add_argument("question", metavar="QUESTION", help="what you want to know")
    understand.add_argument(
        "--thinking", action="store_true", help="think before the answer; the thought goes to stderr"
    )
    _common(understand)

    continue_ = command(
        commands, "continue", "speech that goes on where a recording ends (base models)",
        f"OUTPUT holds what follows, without the recording itself.\n{OUTPUT}",
        "mimo-audio continue talk.wav -o more.wav --seconds 20 --model MiMo-Audio-7B-Base/",
    )  # fmt: skip
    continue_.add_argument("input", type=Path, metavar="INPUT", help="audio file")
    _output(continue_)
    _common(continue_, speech=True, seconds="--seconds")

    convert = command(
        commands, "convert", "change speech as examples show (base models)",
        f"""
        Examples are pairs of recordings, before and after, and what the second says: by --example, or as lines of a
        file, {{"input": "a.wav", "output": "b.wav", "text": "..."}}, names relative to it.
        {OUTPUT}
        """,
        'mimo-audio convert --example a.wav b.wav "It rains." --example c.wav d.wav "Not now." query.wav -o out.wav',
        "mimo-audio convert --examples pairs.jsonl query.wav -o out.wav --model MiMo-Audio-7B-Base/",
    )  # fmt: skip
    convert.add_argument("query", type=Path, metavar="QUERY", help="audio file to convert")
    _output(convert)
    convert.add_argument("--example", nargs=3, action="append", metavar=("INPUT", "OUTPUT", "TEXT"), help="an example")
    convert.add_argument("--examples", type=Path, metavar="FILE", help="examples, a JSON object a line")
    convert.add_argument("--instruction", metavar="TEXT", help="what the examples show, in words")
    _common(convert, speech=True)

    quantize = command(
        commands, "quantize", "a language model with small weights, for less memory and more speed on a CPU",
        """
        Writes a folder like FOLDER, for --model, in which the matrices of the backbone, patch encoder and patch decoder
        have 8 or 4 bits per number; it is loaded in moments, as its files are mapped. The 7B model takes 8.6 GB with
        --int8 and 5.7 GB with --int4 (bfloat16: 15 GB). The audio tokenizer stays where it is: give it by --tokenizer.
        """,
        "mimo-audio quantize MiMo-Audio-7B-Instruct/ small/ --int4", "mimo-audio quantize model/ small/ --int8",
    )  # fmt: skip
    quantize.add_argument("input", metavar="FOLDER", help="language-model folder, or its name in the hub cache")
    quantize.add_argument("output", type=Path, metavar="OUT", help="folder to write")
    bits = quantize.add_mutually_exclusive_group(required=True)
    bits.add_argument("--int8", action="store_true", help="8 bits, a scale per row of a matrix")
    bits.add_argument("--int4", action="store_true", help="4 bits, a scale per group of neighbours")
    quantize.add_argument("--group", type=int, choices=(32, 128), default=32, help="of --int4 (default: %(default)s)")
    quantize.add_argument("--force", action="store_true", help="overwrite a model in OUT")


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="OUTPUT", help="audio file to write")
    _stream(parser)


def _stream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stream",
        nargs="?",
        choices=("pcm", "wav"),
        const="pcm",
        metavar="pcm|wav",
        help="sound to stdout while it is made, 16-bit PCM (default) or WAV, mono; text to stderr",
    )
    parser.add_argument(
        "--chunks",
        choices=("ttfa", "balanced", "throughput"),
        default="balanced",
        help="with --stream: the first sound as early as possible, the least work, or between (default)",
    )


def _common(
    parser: argparse.ArgumentParser, speech: bool = False, seconds: str = "--max-seconds", folders: bool = False
) -> None:
    if folders:
        existing(parser)
    else:
        parser.add_argument("--force", action="store_true", help="overwrite what exists")
    parser.add_argument("--json", action="store_true", help="print results, sizes and times as JSON, an object a line")

    language_model(parser)

    drawing = parser.add_argument_group("drawing", "By default as the task asks; the same seed gives the same result.")
    drawing.add_argument("--seed", type=int, metavar="N", help="(default: 0)")
    for prefix, what in (("", "text"), ("audio-", "speech")) if speech else (("", "text"),):
        drawing.add_argument(
            f"--{prefix}temperature", type=float, metavar="T", help=f"of {what}; 0 takes the likeliest"
        )
        drawing.add_argument(f"--{prefix}top-k", type=int, metavar="K", help=f"the K likeliest only, of {what}")
        drawing.add_argument(
            f"--{prefix}top-p", type=float, metavar="P", help=f"the likeliest that reach mass P, of {what}"
        )
    drawing.add_argument(
        "--max-new", type=positive, metavar="N", help="at most N text tokens and patches (0.16 s) in all"
    )
    if speech:
        drawing.add_argument(seconds, dest="max_seconds", type=float, metavar="S", help="at most S seconds of speech")


def language_model(parser: argparse.ArgumentParser) -> None:
    """--model, --tokenizer, --device, --dtype, --quantize."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        default="nano",
        metavar="FOLDER",
        help="language-model folder (config.json, safetensors, text tokenizer), or nano, the one that ships (default)",
    )
    model.add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="audio-tokenizer folder (default: FOLDER/tokenizer, or MiMo-Audio-Tokenizer beside FOLDER)",
    )
    arithmetic(model, "float32", "bfloat16", "float16")
    model.add_argument(
        "--quantize",
        choices=("int8", "int4"),
        help="8 or 4 bits per weight, while the model is loaded (`mimo-audio quantize` does it once for all)",
    )
