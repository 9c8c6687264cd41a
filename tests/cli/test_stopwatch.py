"""The real-time factor counts encoding and decoding, not reading and writing."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mimo_audio.cli.codec import Stopwatch


def test_only_timed_work_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def takes(seconds: float, items: Iterator[Tensor]) -> Iterator[Tensor]:
        nonlocal now
        for item in items:
            now += seconds
            yield item

    watch = Stopwatch(torch.device("cpu"))
    reading = takes(10, iter(torch.zeros(3)))
    encoding = takes(1, watch.untimed(reading))
    writing = takes(100, watch.timed(encoding))
    assert len(list(writing)) == 3
    assert watch.seconds == 3
