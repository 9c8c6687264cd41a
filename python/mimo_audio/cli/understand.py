"""`mimo-audio understand`: a question about a recording, answered."""

from argparse import Namespace

from mimo_audio.cli.language import Assistant, print_answer, print_json


def run(arguments: Namespace) -> int:
    """Prints the answer and returns the exit status."""
    assistant = Assistant(arguments)
    codes = assistant.read(arguments.input)
    with assistant.options("understand") as options:
        answer = assistant.model.understand(codes, arguments.question, arguments.thinking, **options)
    record = {"input": str(arguments.input), "text": answer.text, "thought": answer.thought}
    record |= assistant.record(answer.stats, assistant.seconds_read)
    if arguments.json:
        print_json(record)
    else:
        print_answer(answer)
    return 0
