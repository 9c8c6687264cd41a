"""Counters and times of a service, for Prometheus. Names are those of other speech servers where they mean the same."""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mimo_audio.tasks.streams import Completed

SECONDS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4)
FACTORS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)


class Metrics:
    """Of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.first = Histogram("audio_ttfp_s", "Seconds to the first sound", buckets=SECONDS, **own)
        self.factor = Histogram("audio_rtf", "Seconds of work per second of sound", buckets=FACTORS, **own)
        self.whole = Histogram("audio_e2e_latency_s", "Seconds to the end of an answer", buckets=SECONDS, **own)
        self.duration = Histogram("audio_duration_s", "Seconds of sound of an answer", buckets=SECONDS, **own)
        self.gap = Histogram("audio_chunk_interval_s", "Seconds between chunks of sound", buckets=SECONDS, **own)
        self.starved = Histogram("audio_underrun_s", "Seconds a player had to wait", buckets=SECONDS, **own)
        self.smooth = Counter("audio_continuity_ok", "Answers without a gap for a player", **own)
        self.answers = Counter("mimo_answers", "Answers by what ended them", ["reason"], **own)
        self.refused = Counter("mimo_refused", "Requests refused because too many were open", **own)
        self.requests = Counter("mimo_requests", "HTTP requests", ["path", "status"], **own)
        self.tokens = Counter("mimo_tokens", "Positions read, known already, and made", ["kind"], **own)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that is read when somebody looks."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def answer(self, began: float) -> "Timing":
        """The times of one answer, asked for at `began` (perf_counter)."""
        return Timing(self, began)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class Timing:
    """One answer as a player in real time hears it."""

    def __init__(self, metrics: Metrics, began: float) -> None:
        self._metrics, self._began = metrics, began
        self._last: float | None = None
        self._played_until = self._waited = self._sound = 0.0
        self._ended = False

    def sound(self, seconds: float) -> None:
        """A chunk came."""
        now = time.perf_counter()
        if self._last is None:
            self._metrics.first.observe(now - self._began)
            self._played_until = now
        else:
            self._metrics.gap.observe(now - self._last)
        self._waited += max(0.0, now - self._played_until)
        self._played_until = max(self._played_until, now) + seconds
        self._last, self._sound = now, self._sound + seconds

    def end(self, completed: Completed[Any] | None) -> None:
        """Nothing more comes: it was completed, or whoever asked has gone."""
        if self._ended:
            return
        self._ended, metrics = True, self._metrics
        if completed is None:
            metrics.answers.labels("abandoned").inc()
            return
        passed, usage = time.perf_counter() - self._began, completed.usage
        metrics.whole.observe(passed)
        for kind, count in (
            ("prompt", usage.prompt),
            ("cached", usage.cached),
            ("text", usage.text),
            ("audio", usage.patches),
        ):
            metrics.tokens.labels(kind).inc(count)
        metrics.answers.labels("completed").inc()
        if self._sound:
            metrics.duration.observe(self._sound)
            metrics.factor.observe(passed / self._sound)
            metrics.starved.observe(self._waited)
            if not self._waited:
                metrics.smooth.inc()
