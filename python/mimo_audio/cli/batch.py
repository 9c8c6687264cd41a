"""Files and folders: which input becomes which output, one after the other, and what happens to bad ones."""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import soundfile

from mimo_audio.errors import MimoError, one_line
from mimo_audio.files.output import OutputError, check_output
from mimo_audio.files.recordings import visible_files
from mimo_audio.progress import progress_bar

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")
Begun = TypeVar("Begun")

# libsndfile's formats by name, and other usual suffixes; RAW has no header, so its sample rate is unknown.
AUDIO_SUFFIXES = ({f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".oga", ".opus"}) - {".raw"}
TOKENS_SUFFIXES = {".tokens"}


@dataclass(frozen=True)
class Job:
    """One input file and the file it becomes; or a line of a file of requests, what it holds, or why it is bad."""

    source: Path
    target: Path
    line: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    error: MimoError | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.source) if self.line is None else f"{self.source}, line {self.line}"


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What the files gave: results of the good ones, one line for each bad one."""

    results: list[Result]
    failures: list[str]

    def exit_status(self) -> int:
        """0, or 2 after naming the bad files on stderr."""
        for failure in self.failures:
            LOG.error(failure)
        if self.failures:
            total = len(self.results) + len(self.failures)
            LOG.error("%d of %d files failed", len(self.failures), total)
        return 2 if self.failures else 0


def plan(source: Path, target: Path, suffixes: Collection[str], target_suffix: str) -> list[Job]:
    """One job for a file; for a folder one per file in it with such a suffix, hidden ones and results aside.

    Files that differ in their suffix only keep it (a.wav -> a.wav.tokens). Raises MimoError if there is nothing to do.
    """
    if not os.path.exists(source):
        raise MimoError(f"no such file or folder: {source}")
    if not os.path.isdir(source):
        return [Job(source, target)]
    if os.path.exists(target) and not os.path.isdir(target):
        raise OutputError(f"{target}: expected a folder, as {source} is one, got a file")
    found = []
    for path in visible_files(source):
        is_result = target != source and target in path.parents
        if path.suffix.lower() in suffixes and not is_result:
            found.append(path.relative_to(source))
    if not found:
        raise MimoError(f"{source}: no files to work on, expected {', '.join(sorted(suffixes))}")
    count = Counter(path.with_suffix("") for path in found)
    outputs = [path if count[path.with_suffix("")] > 1 else path.with_suffix("") for path in found]
    if len(set(outputs)) < len(outputs):  # a.wav and a.flac beside a.wav.wav
        outputs = found
    return [
        Job(source / path, target / output.with_name(output.name + target_suffix))
        for path, output in zip(found, outputs, strict=True)
    ]


def unfinished(jobs: list[Job], skip_existing: bool) -> list[Job]:
    """The jobs; with --skip-existing without those whose target is there."""
    left = [job for job in jobs if not (skip_existing and os.path.isfile(job.target) and job.error is None)]
    note_left(jobs, left)
    return left


def note_left(jobs: list[Job], left: list[Job]) -> None:
    """Says how many of the jobs were done before."""
    if len(left) < len(jobs):
        LOG.info("%d of %d files are there already", len(jobs) - len(left), len(jobs))


def check_distinct(target: Path, *sources: Path) -> None:
    """Raises OutputError if the target is one of the sources, under whatever name."""
    for source in sources:
        if os.path.exists(target) and os.path.exists(source) and os.path.samefile(target, source):
            raise OutputError(f"{target}: expected an output other than the input")


def _check(job: Job, force: bool) -> None:
    if job.error is not None:
        raise job.error
    check_distinct(job.target, job.source)
    check_output(job.target, force)


def run_together(
    jobs: list[Job],
    is_folder: bool,
    force: bool,
    begin: Callable[[Job], Begun],
    finish: Callable[[Job, Begun], Result],
    width: int,
) -> Outcome[Result]:
    """`run` of work that goes on by itself between `begin` and `finish`: so many jobs at once, finished in order."""
    begun: deque[tuple[Job, Begun | MimoError]] = deque()
    later = iter(jobs)

    def work(job: Job) -> Result:
        for other in islice(later, width - len(begun)):
            try:
                _check(other, force)
                begun.append((other, begin(other)))
            except MimoError as error:
                begun.append((other, error))
        _, started = begun.popleft()
        if isinstance(started, MimoError):
            raise started
        return finish(job, started)

    return _run(jobs, is_folder, work)


def run(jobs: list[Job], is_folder: bool, force: bool, work: Callable[[Job], Result]) -> Outcome[Result]:
    """Does `work` for every job. A single file's MimoError is raised; a folder's are collected and the rest goes on."""

    def checked(job: Job) -> Result:
        _check(job, force)
        return work(job)

    return _run(jobs, is_folder, checked)


def _run(jobs: list[Job], is_folder: bool, work: Callable[[Job], Result]) -> Outcome[Result]:
    outcome: Outcome[Result] = Outcome([], [])
    for job in progress_bar(jobs, unit="file", shown=is_folder):
        try:
            LOG.debug("%s -> %s", job.name, job.target)
            outcome.results.append(work(job))
        except MimoError as error:
            named = job.line is None and any(str(path) in str(error) for path in (job.source, job.target))
            message = str(error) if named else f"{job.name}: {error}"
            if not is_folder:
                raise MimoError(message) from error
            outcome.failures.append(one_line(message))
    return outcome
