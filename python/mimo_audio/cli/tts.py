"""`mimo-audio tts`: text to an audio file."""

from argparse import Namespace

from mimo_audio.cli import standard
from mimo_audio.cli.language import Assistant, check_speech_output
from mimo_audio.errors import MimoError


@standard.streams("text_file", "voice", target=".wav")
def run(arguments: Namespace) -> int:
    """Speaks the text and returns the exit status."""
    text = _text(arguments)
    check_speech_output(arguments, arguments.voice)
    assistant = Assistant(arguments)
    voice = assistant.read(arguments.voice) if arguments.voice else None
    if arguments.stream:
        assistant.stream("speak", text, voice, arguments.style, arguments.freeform)
        return 0
    with assistant.options("speak") as options:
        speech = assistant.model.speak(text, voice, arguments.style, arguments.freeform, **options)
    return assistant.deliver(speech)


def _text(arguments: Namespace) -> str:
    if (arguments.text is None) == (arguments.text_file is None):
        given = "neither" if arguments.text is None else "both"
        raise MimoError(f"expected TEXT or --text-file, got {given}")
    if arguments.text_file is None:
        return arguments.text
    try:
        return arguments.text_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MimoError(f"cannot read {arguments.text_file}: {error}") from error
