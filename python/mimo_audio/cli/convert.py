"""`mimo-audio convert`: speech changed as examples show."""

import json
from argparse import Namespace
from pathlib import Path

from mimo_audio.cli.language import Assistant, check_speech_output
from mimo_audio.errors import MimoError
from mimo_audio.tasks.model import CONVERT

KEYS = ("input", "output", "text")
EXPECTED = '{"input": "a.wav", "output": "b.wav", "text": "..."}'


def run(arguments: Namespace) -> int:
    """Converts the query and returns the exit status."""
    examples = [(Path(source), Path(target), text) for source, target, text in arguments.example or []]
    if arguments.examples is not None:
        examples += read_examples(arguments.examples)
    if not examples:
        raise MimoError("expected at least one --example or --examples, got none")
    check_speech_output(arguments, arguments.query, *(path for example in examples for path in example[:2]))
    assistant = Assistant(arguments)
    pairs = [(assistant.read(source), assistant.read(target), text) for source, target, text in examples]
    query = assistant.read(arguments.query)
    if arguments.stream:
        assistant.stream("convert", pairs, query, arguments.instruction or CONVERT)
        return 0
    with assistant.options("convert") as options:
        speech = assistant.model.convert(pairs, query, arguments.instruction or CONVERT, **options)
    return assistant.deliver(speech)


def read_examples(path: Path) -> list[tuple[Path, Path, str]]:
    """The examples in a file of JSON lines; names in it are relative to it. Raises MimoError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MimoError(f"cannot read {path}: {error}") from error
    examples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            source, target, text = (json.loads(line)[key] for key in KEYS)
            examples.append((path.parent / source, path.parent / target, str(text)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MimoError(f"{path}, line {number}: expected {EXPECTED}, got {line!r:.80}") from error
    return examples
