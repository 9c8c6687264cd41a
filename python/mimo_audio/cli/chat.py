"""`mimo-audio chat`: a dialogue in words or recordings, given as arguments or turn by turn."""

import json
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from mimo_audio.cli import batch
from mimo_audio.cli.language import Assistant, print_answer, print_json, print_text
from mimo_audio.errors import AudioError, MimoError, one_line
from mimo_audio.files.output import OutputError, atomic_output, check_output
from mimo_audio.tasks.results import Answer

LOG = logging.getLogger(__name__)


def run(arguments: Namespace) -> int:
    """Answers every turn and returns the exit status."""
    terminal = not arguments.turns and sys.stdin.isatty()
    _check_outputs(arguments)
    for turn in arguments.turns:
        _is_audio(turn)
    dialogue = Dialogue(arguments)
    for turn in arguments.turns or _lines(terminal):
        try:
            dialogue.answer(turn)
        except MimoError as error:
            if not terminal:
                raise
            LOG.error(one_line(str(error)))
    return 0


class Dialogue:
    """What was said so far, and the transcript of it."""

    def __init__(self, arguments: Namespace) -> None:
        self.arguments = arguments
        self.assistant = Assistant(arguments)
        self.voice = self.assistant.read(arguments.voice) if arguments.voice else None
        self.said: list[str | Tensor | Answer] = []
        self.transcript: list[dict[str, Any]] = []

    def answer(self, word: str) -> None:
        """Answers a turn and keeps both. Raises MimoError, and then keeps neither."""
        arguments, assistant = self.arguments, self.assistant
        assistant.restart()
        is_audio = _is_audio(word)
        turn = assistant.read(Path(word)) if is_audio else word
        if arguments.stream:
            header = not self.transcript
            answer = assistant.stream("chat", [*self.said, turn], self.voice, arguments.system, True, header=header)
            if answer is None:
                raise SystemExit(0)  # nobody listens any more
            self._keep(word, is_audio, {"role": "assistant", "text": answer.text})
            if answer.text:
                self.said += [turn, answer]
            return
        streamed = sys.stdout.isatty() and not arguments.json and not arguments.thinking
        with assistant.options("answer", (lambda piece: print_text(piece, end="")) if streamed else None) as options:
            answer = assistant.model.chat(
                [*self.said, turn],
                voice=self.voice,
                system=arguments.system,
                speech=arguments.speech is not None,
                thinking=arguments.thinking,
                **options,
            )
        theirs: dict[str, Any] = {"role": "assistant", "text": answer.text}
        if answer.thought is not None:
            theirs["thought"] = answer.thought
        if answer.speech is not None:
            path = arguments.speech / f"answer-{len(self.transcript) // 2 + 1}.wav"
            answer.speech.save(path, arguments.force)
            theirs |= {"audio": str(path), "duration": round(answer.speech.duration, 3)}
        seconds = answer.speech.duration if answer.speech else assistant.seconds_read
        record = theirs | assistant.record(answer.stats, seconds)
        if arguments.json:
            print_json(record)
        elif streamed:
            print()
        else:
            print_answer(answer)
        self._keep(word, is_audio, theirs)
        if answer.text:
            self.said += [turn, answer]
        else:  # the model cannot read a turn without words
            LOG.warning("an answer without words, this turn is not remembered")

    def _keep(self, word: str, is_audio: bool, theirs: dict[str, Any]) -> None:
        """Adds both turns to the transcript, which is a whole file after every answer."""
        self.transcript += [{"role": "user", "audio" if is_audio else "text": word}, theirs]
        if self.arguments.transcript is None:
            return
        lines = "".join(json.dumps(turn, ensure_ascii=False) + "\n" for turn in self.transcript)
        with atomic_output(self.arguments.transcript, force=True) as partial:  # it was checked when the dialogue began
            partial.write_text(lines, encoding="utf-8", errors="backslashreplace")


def _check_outputs(arguments: Namespace) -> None:
    for name in ("speech", "json", "thinking"):
        if arguments.stream and getattr(arguments, name):
            raise MimoError(f"--stream: expected no --{name} with it, the sound of the answers goes to stdout")
    if arguments.transcript is not None:
        check_output(arguments.transcript, arguments.force)
    if arguments.speech is None:
        return
    check_output(arguments.speech / "answer-1.wav", arguments.force)
    taken = sorted(arguments.speech.glob("answer-*.wav"))
    if taken and not arguments.force:
        raise OutputError(f"{taken[0]}: exists already; --force overwrites it")


def _lines(terminal: bool) -> Iterator[str]:
    """Lines of standard input that are not blank."""
    try:
        if terminal and sys.stdout.isatty():
            import readline  # noqa: F401  (line editing in `input`)

            print("What you say, in words or as the name of an audio file; Ctrl-D ends.", file=sys.stderr)
            while True:
                if (line := input("> ")).strip():
                    yield line.strip()
        for line in sys.stdin:
            if line.strip():
                yield line.strip()
    except EOFError:
        print()
    except UnicodeDecodeError as error:
        raise MimoError(f"standard input: expected UTF-8, {error}") from error


def _is_audio(word: str) -> bool:
    """Whether a turn is the name of an audio file. Raises AudioError if it looks like one that is not there."""
    if Path(word).suffix.lower() not in batch.AUDIO_SUFFIXES:
        return False
    is_file = os.path.isfile(word)
    if not is_file and len(word.split()) == 1:
        raise AudioError(f"no such file: {word}")
    return is_file
