"""What a run writes down as it goes: log.jsonl, TensorBoard curves and samples where tensorboard is, a line to read."""

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mimo_audio.files import OutputError, atomic_output

SHOWN = (
    *("audio_to_text", "mel", "coarse", "magnitude", "phase", "wave", "commitment"),
    *("adversarial", "feature_matching", "discriminator"),
)


class Journal:
    """The log of one stage from step `first` on; what an earlier run noted after that step is dropped."""

    def __init__(self, folder: Path, first: int, steps: int) -> None:
        self.steps, self.written = steps, first
        self.sums: dict[str, float] = defaultdict(float)
        self.since = time.monotonic()
        path = folder / "log.jsonl"
        try:
            kept = path.read_text(encoding="utf-8").splitlines() if first and path.exists() else []
            with atomic_output(path, force=True) as partial:
                partial.write_text("".join(f"{line}\n" for line in kept if _step(line) <= first), encoding="utf-8")
            self.log = open(path, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise OutputError(f"{path}: cannot write, {error.strerror or error}") from error
        self.board = None
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder / "tensorboard", purge_step=first)
        self.bar = tqdm(total=steps, initial=first, unit="step", disable=None, leave=False)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()
        if self.board:
            self.board.close()
        self.log.close()

    def add(self, values: dict[str, float]) -> None:
        """Counts a step's values towards the next record."""
        for name, value in values.items():
            self.sums[name] += value
        self.bar.update()

    def write(self, done: int, perplexity: Sequence[float]) -> None:
        """Writes the means since the last record, after step `done`. Raises OutputError."""
        now, count = time.monotonic(), done - self.written
        record: dict[str, Any] = {"step": done, **{name: round(s / count, 4) for name, s in self.sums.items()}}
        record["perplexity"] = [round(p) for p in perplexity]
        record["steps_per_second"] = round(count / (now - self.since), 3)
        try:
            self.log.write(json.dumps(record) + "\n")
            self.log.flush()
        except OSError as error:
            raise OutputError(f"{self.log.name}: cannot write, {error.strerror or error}") from error
        if self.board:
            for name in (*self.sums, "steps_per_second"):
                self.board.add_scalar(name, record[name], done)
            for number, value in enumerate(perplexity):
                self.board.add_scalar(f"perplexity/{number}", value, done)
        tqdm.write(progress_line(record, self.steps))
        self.sums.clear()
        self.since, self.written = now, done

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


def progress_line(record: dict[str, Any], steps: int) -> str:
    """One line: step, losses, codebook perplexities, speed."""
    losses = " ".join(f"{name} {record[name]:.3f}" for name in SHOWN if name in record)
    usage = "-".join(str(p) for p in record["perplexity"])
    return f"{record['step']}/{steps} {losses} | codebooks {usage} | {record['steps_per_second']:.2f} steps/s"
