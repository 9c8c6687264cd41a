"""The demo's second half: the nano language model speaks and listens."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mimo_audio.errors import GenerationError, one_line
from mimo_audio.tasks.model import MimoAudio
from mimo_audio.tasks.results import Speech

SENTENCE = "Please tell bob that the light is dark."  # nano has not heard it


@dataclass(frozen=True)
class Shown:
    """One thing the model did: `what`, on which words, and what came of it: words, and a sound of so many seconds."""

    what: str
    given: str
    came: str
    passed: float
    duration: float | None = None
    file: str | None = None


class Showcase:
    """Runs the tasks of a model one after the other into a folder; `lines` are what they came to."""

    def __init__(self, model: MimoAudio, out: Path) -> None:
        self.model, self.out = model, out
        self.lines: list[Shown] = []

    def speak(self, what: str, text: str, name: str, voice: Path | None = None) -> None:
        """The text to a file, in the model's own voice or that of a recording, and the model's transcript of it."""
        speech = self._timed(what, text, name, lambda: self.model.speak(text, voice))
        if isinstance(speech, Speech):
            self._timed("hears that as", name, None, lambda: self.model.transcribe(speech))

    def transcribe(self, what: str, recording: Path) -> None:
        """The words of a recording."""
        self._timed(what, recording.name, None, lambda: self.model.transcribe(recording))

    def _timed(self, what: str, given: str, name: str | None, task: Callable[[], str | Speech]) -> str | Speech | None:
        start = time.perf_counter()
        try:
            found = task()
        except GenerationError as error:  # a small model may fail to speak; the demo goes on and says so
            self.lines.append(Shown(what, given, f"nothing: {error}", time.perf_counter() - start))
            return None
        passed = time.perf_counter() - start
        if isinstance(found, str) or name is None:
            self.lines.append(Shown(what, given, str(found), passed))
            return found
        found.save(self.out / name, True)
        self.lines.append(Shown(what, given, found.text, passed, found.duration, name))
        return found

    def table(self) -> str:
        """What was given, what came of it, in how much time."""
        rows = [("", "given", "result", "seconds", "sound, s")]
        for line in self.lines:
            sound = "-" if line.duration is None else f"{line.duration:.1f}"
            came = f"{line.file}: {line.came}" if line.file else line.came
            rows.append((line.what, one_line(line.given), one_line(came)[:60], f"{line.passed:.2f}", sound))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )
