"""`mimo-audio continue`: the speech that follows a recording."""

from argparse import Namespace

from mimo_audio.cli.language import Assistant, check_speech_output


def run(arguments: Namespace) -> int:
    """Continues the recording and returns the exit status."""
    check_speech_output(arguments, arguments.input)
    assistant = Assistant(arguments)
    codes = assistant.read(arguments.input)
    if arguments.stream:
        assistant.stream("extend", codes)
        return 0
    with assistant.options("continue") as options:
        speech = assistant.model.extend(codes, **options)
    return assistant.deliver(speech)
