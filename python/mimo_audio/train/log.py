"""What a run writes down as it goes: log.jsonl, TensorBoard curves and samples where tensorboard is, a line to read."""

import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mimo_audio.files.output import OutputError, atomic_output
from mimo_audio.progress import progress_bar

LOG = logging.getLogger(__name__)
RATES = (
    "_per_second",
    "_per_hour",
    "mfu",
)  # ends of the names of amounts, which a record divides by the time they took


class TrainingLog:
    """The log of one stage from step `first` on; what an earlier run noted after that step is dropped.

    `shown`: the names of what a line on the terminal has of a record.
    """

    def __init__(self, folder: Path, first: int, steps: int, shown: Sequence[str] = ()) -> None:
        self.steps, self.written, self.shown = steps, first, tuple(shown)
        self.values: dict[str, list[float]] = defaultdict(list)
        self.since = time.monotonic()
        path = self.path = folder / "log.jsonl"
        try:
            kept = path.read_text(encoding="utf-8").splitlines() if first and path.exists() else []
            with atomic_output(path, force=True) as partial:
                partial.write_text("".join(f"{line}\n" for line in kept if _step(line) <= first), encoding="utf-8")
            self.file = os.open(path, os.O_WRONLY | os.O_APPEND)  # unbuffered: nothing is left to fail when it closes
        except OSError as error:
            raise OutputError(f"{path}: cannot write, {error.strerror or error}") from error
        self.board = None
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder / "tensorboard", purge_step=first)
        self.bar = progress_bar(total=steps, initial=first, unit="step", leave=False)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()
        if self.board:
            with suppress(OSError):  # a full disk, which has been said
                self.board.close()
        os.close(self.file)

    def add(self, values: dict[str, float]) -> None:
        """Counts a step's values towards the next record."""
        for name, value in values.items():
            self.values[name].append(value)
        self.bar.update()

    def write(self, done: int, notes: Mapping[str, float | str | Sequence[float]]) -> None:
        """Writes the means since the last record, over the steps that had a value, and notes. Raises OutputError.

        Of amounts, by their names (RATES), it writes the sum divided by the time they took.
        """
        now, count = time.monotonic(), done - self.written
        seconds = max(now - self.since, 1e-6)
        record: dict[str, Any] = {"step": done}
        for name, values in self.values.items():
            record[name] = _digits(sum(values) / seconds if name.endswith(RATES) else fmean(values))
        record |= notes
        record["steps_per_second"] = _digits(count / seconds)
        try:
            os.write(self.file, f"{json.dumps(record)}\n".encode())
            if self.board:
                for name, value in record.items():
                    for curve, number in _curves(name, value):
                        self.board.add_scalar(curve, number, done)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write, {error.strerror or error}") from error
        LOG.info(progress_line(record, self.steps, self.shown))
        self.values.clear()
        self.since, self.written = now, done

    def note(self, done: int, name: str, values: Mapping[str, float]) -> None:
        """Writes values that are measured after a checkpoint, as a record of their own. Raises OutputError."""
        record = {"step": done, **{f"{name}/{kind}": _digits(value) for kind, value in values.items()}}
        try:
            os.write(self.file, f"{json.dumps(record)}\n".encode())
            if self.board:
                for curve, value in record.items():
                    for point in _curves(curve, value):
                        self.board.add_scalar(*point, done)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write, {error.strerror or error}") from error
        tqdm.write(f"{done}/{self.steps} {name} " + " ".join(f"{k} {v:.3f}" for k, v in values.items()))

    def listen(self, done: int, name: str, wave: Tensor, sample_rate: int) -> None:
        """Adds a wave [N] to TensorBoard."""
        if self.board:
            self.board.add_audio(name, wave.clamp(-1, 1)[None], done, sample_rate)


def _step(line: str) -> float:
    """The step of a record; infinity for what a killed process left half written."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _digits(number: float) -> float:
    """Five significant ones, which a small commitment or a slow step needs as much as a large loss."""
    return float(f"{number:.5g}")


def _curves(name: str, value: float | str | Sequence[float]) -> Iterator[tuple[str, float]]:
    """The curves that a value of a record is a point of."""
    if name == "step" or isinstance(value, str):
        return
    if isinstance(value, int | float):
        yield name, value
    else:
        yield from ((f"{name}/{number}", item) for number, item in enumerate(value))


def progress_line(record: dict[str, Any], steps: int, shown: Sequence[str]) -> str:
    """One line: step, losses, lists (codebooks' use), speed, time left."""
    losses = " ".join(f"{name} {record[name]:.3f}" for name in shown if isinstance(record.get(name), float))
    lists = [f"{name} {'-'.join(map(str, value))}" for name, value in record.items() if isinstance(value, list)]
    left = tqdm.format_interval((steps - record["step"]) / record["steps_per_second"])
    return " | ".join(
        [f"{record['step']}/{steps} {losses}", *lists, f"{record['steps_per_second']:.3g} steps/s, {left} left"]
    )
