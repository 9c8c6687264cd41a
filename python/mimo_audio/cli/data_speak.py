"""`mimo-audio data speak`: a corpus of speech from texts."""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from mimo_audio.data import voices
from mimo_audio.data.clips import Rendered
from mimo_audio.data.corpus import plan_speech, read_texts, render_corpus
from mimo_audio.data.voices.cast import Cast
from mimo_audio.errors import MimoError, one_line
from mimo_audio.progress import progress_bar

LOG = logging.getLogger(__name__)
MOST_NAMED = 20  # problems that are printed


def run(arguments: Namespace) -> int:
    """Renders the corpus and returns the exit status: 1 if some texts could not be said."""
    if arguments.list:
        print_voices()
        return 0
    for name, given in (("TEXTS", arguments.texts), ("--voices", arguments.voices), ("--out", arguments.out)):
        if not given:
            raise MimoError(f"{name}: expected one, got none")
    cast = Cast.of(arguments.voices, arguments.mixtures, arguments.held_out)
    texts = read_texts(arguments.texts)
    clips = plan_speech(texts, cast, arguments.seed, arguments.rates, arguments.voices_per_text)
    with Progress(len(texts) * arguments.voices_per_text) as progress:
        workers = arguments.workers or os.cpu_count() or 1
        summary = render_corpus(clips, arguments.out, workers, arguments.hours, progress.count)
    print(f"{arguments.out}: {summary.clips} clips, {summary.hours:.2f} h")
    return report_problems(summary.problems)


class Progress:
    """A bar on stderr with the hours rendered, and how many of them per hour."""

    def __init__(self, clips: int | None) -> None:
        self._bar = progress_bar(total=clips, unit="clip", smoothing=0.05)
        self._seconds = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def total(self, clips: int) -> None:
        self._bar.total = clips

    def count(self, rendered: Rendered) -> None:
        self._seconds += rendered.seconds
        elapsed = max(self._bar.format_dict["elapsed"], 1e-9)
        self._bar.set_postfix_str(f"{self._seconds / 3600:.2f} h, {self._seconds / elapsed:.0f} x real time", False)
        self._bar.update()


def print_voices() -> None:
    """All voices by engine, those held out marked, and what is missing."""
    found, missing = voices.installed()
    for name, spoken_by in found.items():
        for voice in spoken_by.voices:
            held_out = voices.is_held_out(f"{name}/{voice}")
            print(f"{name}/{voice}{'  (held out)' if held_out else ''}")
    for reason in missing.values():
        print(one_line(reason), file=sys.stderr)


def report_problems(problems: Sequence[str]) -> int:
    """Names on stderr what could not be said; the exit status."""
    for problem in problems[:MOST_NAMED]:
        LOG.error(one_line(problem))
    if problems:
        LOG.error("%d clips could not be said", len(problems))
    return 1 if problems else 0
