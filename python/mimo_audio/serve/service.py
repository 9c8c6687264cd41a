"""The session layer: a loaded model and who asks it. Knows tasks, events and limits; no HTTP and no names of events.

Everything here runs in one event loop; the model works in threads. An answer is a request to the engine:

    async with service.open("speak", "Good morning!", voice=codes, chunks="ttfa") as answer:
        async for event in answer:  # TextDelta, AudioDelta, in the end Completed (mimo_audio.tasks.streams)
            ...

Leaving the block ends the request within one patch, whatever the reason. `answer.cancel()` ends it with what there is:
iteration goes on to Completed, whose stats.reason is "cancelled".
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from math import ceil
from typing import Any, Literal, TypeAlias, TypeVar

from torch import Tensor

from mimo_audio.engine import Engine, QueueFullError
from mimo_audio.errors import MimoError, first_line
from mimo_audio.serve.errors import ServeError, unavailable
from mimo_audio.serve.metrics import Metrics
from mimo_audio.serve.settings import Limits
from mimo_audio.serve.uploads import Decoders
from mimo_audio.serve.voices import VoiceStore
from mimo_audio.tasks.model import MimoAudio
from mimo_audio.tasks.sounds import Sound
from mimo_audio.tasks.streams import AudioDelta, Completed, Event, Schedule, Stream

LOG = logging.getLogger(__name__)
State: TypeAlias = Literal["loading", "warming", "ready", "mute", "failed", "draining"]
T = TypeVar("T")
WARM_TEXT, WARM_SECONDS, WARM_TRIES = "One two three.", 2.0, 8
READERS = 2  # recordings that are encoded at once
RECENT = 32  # answers whose times say when it is worth to come back


class Service:
    """A model by the name that clients see, loaded by `load` when the service starts."""

    def __init__(self, load: Callable[[], MimoAudio], name: str, limits: Limits = Limits()) -> None:  # noqa: B008
        self.name, self.limits, self.created = name, limits, int(time.time())
        self.state: State = "loading"
        self.reason = "the model is being loaded"
        self.failure: Exception | None = None
        self.on_failure: Callable[[], object] = lambda: None
        self.voices = VoiceStore()
        self._decoders = Decoders()
        self.open_answers = 0
        self.metrics = Metrics()
        self._load = load
        self._model: MimoAudio | None = None
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="mimo-audio-read")
        self._took: deque[float] = deque(maxlen=RECENT)
        self._idle = asyncio.Event()
        self._idle.set()
        for name, what, value in (
            ("mimo_open_answers", "Answers that are made or wait", lambda: self.open_answers),
            ("mimo_running", "Requests that have a slot", lambda: self._of_engine(lambda e: len(e._scheduler.running))),
            ("mimo_pages_held", "Pages of keys and values in use", lambda: self._of_engine(lambda e: e.pool.held)),
            ("mimo_ready", "1 if requests are answered with finite sound", lambda: self.ready),
        ):
            self.metrics.watch(name, what, value)

    def _of_engine(self, count: Callable[[Engine], int]) -> int:
        return 0 if self._model is None else count(self._model.engine)

    # --- the life of a service ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Loads the model and asks it something; from then on `ready`. Never raises: `failure` has the error."""
        try:
            self._model = await asyncio.to_thread(self._load)
            self._model.engine.queue = self.limits.waiting
            self.state, self.reason = "warming", "the first request has not been answered yet"
            await self._warm()
        except Exception as error:
            self.state, self.reason, self.failure = "failed", first_line(error), error
            self.on_failure()

    async def _warm(self) -> None:
        """One request has to be answered with finite sound; a text may now and then be answered without any."""
        for seed in range(WARM_TRIES):
            try:
                async with self.open("speak", WARM_TEXT, seed=seed, max_seconds=WARM_SECONDS) as answer:
                    async for event in answer:
                        if isinstance(event, AudioDelta) and not event.wave.isfinite().all():
                            raise MimoError("the model speaks what is no sound: NaN or infinity")
            except ServeError as error:
                if error.code != "no_answer":
                    raise
            else:
                self.state, self.reason = "ready", ""
                return
        self.state, self.reason = "mute", f"the model said nothing in {WARM_TRIES} tries"
        LOG.warning("not ready: %s", self.reason)

    def drain(self) -> None:
        """From now on nobody new is answered."""
        self.state, self.reason = "draining", "the server is shutting down"

    async def stop(self) -> None:
        """Lets answers end, as long as `limits` allow."""
        self.drain()
        try:
            await asyncio.wait_for(self._idle.wait(), self.limits.drain_seconds)
        except asyncio.TimeoutError:
            LOG.warning("%d answers are cut off", self.open_answers)
        self._decoders.close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether a request has been answered with finite sound, and more are taken."""
        return self.state == "ready"

    @property
    def model(self) -> MimoAudio:
        """Raises ServeError (503) while it is not there, or no longer answers."""
        if self._model is None or self.state in ("failed", "draining"):
            raise unavailable(self.reason, 5, self.state)
        return self._model

    # --- answers -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(
        self, task: str, *arguments: Any, chunks: Schedule = "balanced", **named: Any
    ) -> AsyncIterator["Answer"]:
        """A task of MimoAudio (`MimoAudio.stream`) as an answer to iterate over; ends with the block.

        Raises ServeError: 503 if too many are asked already, 400 for what the task cannot be asked, 500 if the model
        fails, also while iterating.
        """
        model = self.model
        self._admit(model)
        began = time.perf_counter()
        try:
            named.setdefault("deadline", self.limits.answer_seconds)
            stream = await self._begin(model, task, arguments, chunks, named)
            answer = Answer(stream, self.metrics, began)
            try:
                yield answer
            finally:
                await answer.close()
        finally:
            self._took.append(time.perf_counter() - began)
            self.open_answers -= 1
            if not self.open_answers:
                self._idle.set()

    def _admit(self, model: MimoAudio) -> None:
        if self.open_answers >= model.slots + self.limits.waiting:
            self.metrics.refused.inc()
            raise unavailable(f"{self.open_answers} requests are open already: ask again later", self.retry_after())
        self.open_answers += 1
        self._idle.clear()

    def retry_after(self) -> int:
        """Seconds after which a place is likely to be free."""
        slots = 1 if self._model is None else self._model.slots
        mean = sum(self._took) / len(self._took) if self._took else 1.0
        return max(1, ceil(mean * max(1, self.open_answers - slots) / slots))

    async def _begin(
        self, model: MimoAudio, task: str, arguments: tuple[Any, ...], chunks: Schedule, named: dict[str, Any]
    ) -> Stream[Any]:
        """The request, made in a thread; recordings had better be codes by now (`encode`)."""
        making = asyncio.ensure_future(asyncio.to_thread(model.stream, task, *arguments, chunks=chunks, **named))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:  # whoever asked has gone: the request ends as soon as it is there
            making.add_done_callback(_close)
            raise
        except QueueFullError as error:
            self.metrics.refused.inc()
            raise unavailable(str(error), self.retry_after()) from error

    async def decode(self, data: bytes, name: str = "file", most_seconds: float | None = None) -> Tensor:
        """An uploaded file -> mono [N] float32 at the model's rate. Raises AudioError with `name`."""
        most = self.limits.audio_seconds if most_seconds is None else most_seconds
        return await self._decoders.decode(data, self.model.sample_rate, most, name)

    async def encode(self, sound: Sound, name: str = "audio") -> Tensor:
        """The codes int64 [C, T] of a recording, in a thread. Raises AudioError."""
        return await self.read(lambda: self.model.encode(sound, name))

    async def read(self, work: Callable[[], T]) -> T:
        """Runs work on a recording, in a thread; few at once."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)


def _close(making: "asyncio.Future[Stream[Any]]") -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()


class Answer:
    """The events of one request, once; `completed` is the last of them."""

    def __init__(self, stream: Stream[Any], metrics: Metrics, began: float) -> None:
        self._stream, self._timing = stream, metrics.answer(began)
        self._events = stream.__aiter__()
        self.completed: Completed[Any] | None = None

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> Event[Any]:
        try:
            event = await anext(self._events)
        except StopAsyncIteration:
            raise
        except MimoError as error:
            raise ServeError(500, str(error), "no_answer") from error
        if isinstance(event, AudioDelta):
            self._timing.sound(len(event.wave) / event.sample_rate)
        elif isinstance(event, Completed):
            self.completed = event
        return event

    def cancel(self) -> None:
        """Ends the request with what there is."""
        self._stream.cancel()

    async def close(self) -> None:
        """Lets go of everything; nothing happens if it has ended."""
        self._stream.close()
        with suppress(RuntimeError):  # another task waits for the next event: it gets the last one
            await self._events.aclose()  # type: ignore[attr-defined]  # an async generator
        self._timing.end(self.completed)
