"""What the tasks of the language model share: loading it, recordings, options, progress, and what is printed."""

import json
import logging
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimo_audio.cli import batch, stream
from mimo_audio.cli.codec import progress, read_blocks
from mimo_audio.errors import AudioError, MimoError, one_line
from mimo_audio.files import audio
from mimo_audio.files.output import check_output
from mimo_audio.files.pcm import pcm, wav_header
from mimo_audio.progress import progress_bar
from mimo_audio.tasks import model
from mimo_audio.tasks.model import MimoAudio
from mimo_audio.tasks.options import Options
from mimo_audio.tasks.results import Answer, Speech, Stats
from mimo_audio.tasks.streams import AudioDelta, TextDelta

LOG = logging.getLogger(__name__)


class Assistant:
    """A loaded model and the options of this command; `seconds_read` is the length of all recordings read so far."""

    def __init__(self, arguments: Namespace) -> None:
        self.arguments = arguments
        dtype = arguments.dtype and getattr(torch, arguments.dtype)
        self.model: MimoAudio = model.load(
            arguments.model, arguments.tokenizer, arguments.device, dtype, quantize=arguments.quantize
        )
        self.seconds_read = 0.0
        self.start = time.perf_counter()

    def restart(self) -> None:
        """Sets the clock and `seconds_read` to zero, for a result of its own."""
        self.start, self.seconds_read = time.perf_counter(), 0.0

    def read(self, path: Path) -> Tensor:
        """The codes of an audio file. Raises AudioError, with its name."""
        rate = self.model.sample_rate

        def counted(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
            for block in blocks:
                self.seconds_read += len(block) / rate
                yield block

        blocks = read_blocks(path, rate, self.model.most_seconds)
        try:
            return self.model.encode_blocks(counted(progress("read", blocks, rate)))
        except AudioError as error:
            raise AudioError(str(error) if str(path) in str(error) else f"{path}: {error}") from error

    def warn_of_words(self, text: str) -> None:
        """Says which words of a text that is to be spoken the model was not taught."""
        if unknown := self.model.defaults.unknown(text):
            LOG.warning("words that this model was not taught, and may say wrongly: %s", one_line(", ".join(unknown)))

    def given(self) -> dict[str, Any]:
        """The options of the command line."""
        return {name: getattr(self.arguments, name, None) for name in Options.__annotations__}

    @contextmanager
    def options(self, title: str, on_text: Callable[[str], object] | None = None) -> Iterator[Options]:
        """The options given, and a bar meanwhile: of text if there is no speech, or on_text shows it itself."""
        given = self.given()
        speech = hasattr(self.arguments, "max_seconds") and getattr(self.arguments, "speech", True)
        frame_rate = self.model.audio_tokenizer.config.frame_rate
        total, unit = (self.arguments.max_seconds, "s") if speech else (None, "char")
        with progress_bar(desc=title, total=total, unit=unit, leave=False, shown=on_text is None, delay=2) as bar:
            shown: Options = {
                "on_text": on_text or (None if speech else lambda piece: bar.update(len(piece))),
                "on_patch": (lambda codes: bar.update(codes.shape[1] / frame_rate)) if speech else None,
            }
            yield Options(**{**given, **shown})  # type: ignore[typeddict-item]

    def stream(self, task: str, *arguments: object, header: bool = True) -> Any:
        """The sound of a task to stdout as it is made, its text to stderr; -> the result, None if nobody listens."""
        heard = None
        with self.model.stream(task, *arguments, chunks=self.arguments.chunks, **self.given()) as events:

            def pieces() -> Iterator[bytes]:
                nonlocal heard
                if header and self.arguments.stream == "wav":
                    yield wav_header(self.model.sample_rate)
                for event in events:
                    if isinstance(event, AudioDelta):
                        yield pcm(event.wave)
                    elif isinstance(event, TextDelta):
                        print_text(event.text, end="", thought=True)
                    else:
                        heard = event.result
                print(file=sys.stderr)

            stream.write(pieces)
        return heard

    def record(self, stats: Stats, seconds: float) -> dict[str, Any]:
        """Sizes and times of a result that stands for so many seconds of sound, for --json; says if it was cut off."""
        passed = time.perf_counter() - self.start
        if not stats.ended and self.arguments.max_new is None and getattr(self.arguments, "max_seconds", None) is None:
            LOG.warning("cut off, the model's context is full")
        record = {
            "prompt": stats.prompt,
            "text_tokens": stats.text,
            "patches": stats.patches,
            "ended": stats.ended,
            "seconds": round(passed, 3),
            "seconds_generating": round(stats.seconds, 3),
        }
        return record | ({"real_time_factor": round(passed / seconds, 3)} if seconds else {})

    def deliver(self, speech: Speech, target: Path | None = None, request: Mapping[str, Any] | None = None) -> int:
        """Writes speech to `target`, by default --output, prints it for --json, and returns the exit status.

        request: what --json says of it first.
        """
        arguments, target = self.arguments, target or self.arguments.output
        speech.save(target, arguments.force)
        record = {**(request or {}), "output": str(target), "text": speech.text, "duration": round(speech.duration, 3)}
        if speech.thought is not None:
            record["thought"] = speech.thought
        record |= self.record(speech.stats, speech.duration)
        if arguments.json:
            print_json(record)
        return 0


def check_speech_output(arguments: Namespace, *inputs: Path | None) -> None:
    """Raises MimoError unless --output can be written and is none of the inputs; meant for before long work.

    With --stream there must be none.
    """
    if (arguments.output is None) == (arguments.stream is None):
        given = "neither" if arguments.output is None else "both"
        raise MimoError(f"expected -o OUTPUT or --stream, got {given}")
    if arguments.output is None:
        return
    audio.check_writable_format(arguments.output)
    batch.check_distinct(arguments.output, *filter(None, inputs))
    check_output(arguments.output, arguments.force)


def print_json(record: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(record), flush=True)


def print_answer(answer: Answer) -> None:
    """The answer on stdout, and on stderr the thought if there is one."""
    if answer.thought is not None:
        print_text(answer.thought, thought=True)
    print_text(answer.text)


def print_text(text: str, end: str = "\n", thought: bool = False) -> None:
    """Text of a model on stdout (a thought on stderr), without characters that would act on a terminal."""
    file = sys.stderr if thought else sys.stdout
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    encoding = file.encoding or "utf-8"
    print(shown.encode(encoding, "replace").decode(encoding), end=end, file=file, flush=True)
