"""The loop around every training run: reading ahead, log, checkpoints, Ctrl-C; what a step does is the trainer's."""

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mimo_audio.errors import MimoError
from mimo_audio.train.log import TrainingLog
from mimo_audio.train.processes import Processes
from mimo_audio.train.recipe import TrainingError

LOG = logging.getLogger(__name__)
READ_AHEAD = 3  # micro-batches per thread
B = TypeVar("B")


class Lengths(Protocol):
    """What the loop reads of a stage's recipe."""

    @property
    def steps(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def log_every(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...


class Trainer(Protocol, Generic[B]):
    """A stage that the loop runs."""

    processes: Processes
    micro_batches: range  # this process's, of every step
    shown: tuple[str, ...]  # what the line on the terminal has of a record

    @property
    def training(self) -> Lengths: ...

    def read(self, step: int, micro_batch: int) -> B:
        """A micro-batch; called by several threads. Raises MimoError."""
        ...

    def step(self, step: int, batches: Iterable[B]) -> dict[str, float]:
        """Trains one step, in all processes at once, and returns its numbers. Raises MimoError; then nothing moved."""
        ...

    def notes(self) -> dict[str, Any]:
        """What else a record has, besides the means of the steps' numbers."""
        ...

    def save(self, folder: Path, done: int) -> None:
        """Writes everything needed to go on after so many steps; called in all processes."""
        ...

    def examine(self, log: TrainingLog | None, done: int) -> None:
        """Looks at the model after a checkpoint; called in all processes, and the first has the log."""
        ...


def read_ahead(read: Callable[[int, int], B], places: Iterable[tuple[int, int]], workers: int) -> Generator[B]:
    """read(step, micro_batch) for each of `places`, in order, by threads a little ahead of their use."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for step, micro_batch in places:
                waiting.append(pool.submit(read, step, micro_batch))
                if len(waiting) > READ_AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def run(trainer: Trainer[Any], folder: Path, first: int) -> bool:
    """Trains from step `first` to the last, or until Ctrl-C; returns whether the last was reached."""
    training, processes = trainer.training, trainer.processes
    places = ((step, micro_batch) for step in range(first, training.steps) for micro_batch in trainer.micro_batches)
    with (
        stop_requests() as asked,
        closing(read_ahead(trainer.read, places, training.workers)) as batches,
        _training_log(trainer, folder, first) as log,
    ):
        for step in range(first, training.steps):
            try:
                numbers = trainer.step(step, islice(batches, len(trainer.micro_batches)))
            except TrainingError:
                raise  # the model is not what it should be
            except MimoError:  # nothing has moved in this step, and those before it shall not be lost
                if step > first:
                    trainer.save(folder, step)
                raise
            done, stopping = step + 1, processes.any(asked.is_set())
            is_last = stopping or done == training.steps
            if log:
                log.add(numbers)
                if done % training.log_every == 0 or is_last:
                    log.write(done, trainer.notes())
            if done % training.checkpoint_every == 0 or is_last:
                trainer.save(folder, done)
                trainer.examine(log, done)
            if stopping and done < training.steps:
                if log:
                    LOG.info("stopped after step %d; --resume continues", done)
                return False
    processes.wait()  # the first one's files are there now
    return True


@contextmanager
def _training_log(trainer: Trainer[Any], folder: Path, first: int) -> Iterator[TrainingLog | None]:
    """The log, in the first process only."""
    if not trainer.processes.is_first:
        yield None
        return
    with TrainingLog(folder, first, trainer.training.steps, trainer.shown) as log:
        yield log


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, in place of what they did before; Ctrl-C after that interrupts at once."""
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
