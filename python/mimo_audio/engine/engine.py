"""The engine: many requests in one running batch, each with the tokens that it has alone (docs/engine.md).

Whoever waits for something drives: a thread that iterates over a handle runs steps until there is a group for it, and
what the steps make for others is there when they look. Only one thread drives at a time. `start` has a thread of the
engine's own drive as long as there is work, as those who wait in an event loop need it.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from hashlib import blake2b
from threading import Condition, Thread
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mimo_audio.engine.contracts import FinishReason, Limits, QueueFullError, Request, Result, Usage
from mimo_audio.engine.executor import Draw, Drawn, Executor, Rows
from mimo_audio.engine.guard import Watch
from mimo_audio.engine.pages import MARK, PagePool
from mimo_audio.engine.scheduler import Job, Plan, Scheduler
from mimo_audio.errors import GenerationError, MimoError, first_line
from mimo_audio.lm import groups
from mimo_audio.lm.model import AudioLanguageModel
from mimo_audio.lm.samplers import GREEDY, Sampler

if TYPE_CHECKING:
    from typing_extensions import Self

PAGE = 256  # positions: pieces of backbone_step's attention on the CPU, so that none has to be gathered
CONTEXTS = 2  # whole ones that the pool has room for, unless told otherwise
BESIDE = {False: 8, True: 32}  # positions of prompts beside one group: what a GPU does in the time of one


def generate(
    model: AudioLanguageModel,
    prompt_ids: Tensor,
    max_new: int,
    min_new: int = 0,
    stop: Collection[int] = (),
    text_sampler: Sampler | None = None,
    audio_sampler: Sampler | None = None,
    seed: int = 0,
) -> Tensor:
    """prompt_ids [1 + C, P * G] -> the groups that follow, [1 + C, n * G] int64 on the CPU; without samplers greedy.

    Ends after max_new groups, with a text id of `stop` once there are min_new groups, or at the end of the context.
    Raises LanguageModelError and GenerationError.
    """
    limits = Limits(max_new, min_new, stop)
    request = Request(prompt_ids, limits, text_sampler or GREEDY, audio_sampler or GREEDY, seed)
    return Engine(model, slots=1).run([request])[0]


class Handle:
    """A request that was submitted: iterate over its groups [1 + C, G], or take its `result`; both as they come.

    Also `async for`. Iteration ends when the request does, and raises its error if that is why.
    """

    def __init__(self, engine: "Engine", request: Request, job: Job, prompt: Tensor, most: int, buffer: int) -> None:
        self.request = request
        self._engine, self._job, self._buffer, self._most = engine, job, buffer, most
        self._read = 0  # groups that were iterated over
        self._new: list[Tensor] = []  # all groups that were made
        self._grid, self._digest = prompt, blake2b(digest_size=16)
        self._patches = 0
        self._watch = Watch(request.guard) if request.guard else None
        self._draw = Draw(request.text_sampler, request.audio_sampler, request.seed)
        self._came = time.perf_counter()
        self._began: float | None = None
        self._first: float | None = None
        self._cancelled = False
        self._result: Result | None = None
        self._listeners: list[Callable[[], object]] = []

    @property
    def done(self) -> bool:
        """Whether there will be no more groups."""
        return self._result is not None

    def cancel(self) -> None:
        """Ends the request with what there is; nothing happens if it has ended."""
        self._cancelled = True
        self._engine._notify()

    def result(self) -> Result:
        """Waits for the end; -> all groups and why there are no more. Does not raise the request's error."""
        self._buffer = 0
        self._engine._wait(self, lambda: self._result is not None)
        assert self._result is not None
        return self._result

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        self._engine._wait(self, lambda: self._read < len(self._new) or self._result is not None)
        group = self._take()
        if group is None:
            raise StopIteration
        return group

    def __aiter__(self) -> AsyncIterator[Tensor]:
        return self

    async def __anext__(self) -> Tensor:
        loop = asyncio.get_running_loop()
        while self._read == len(self._new) and self._result is None:
            some: asyncio.Future[None] = loop.create_future()

            def wake(some: "asyncio.Future[None]" = some) -> None:
                loop.call_soon_threadsafe(_settle, some)

            self._engine._listen(self, wake)
            self._engine.start()
            await some
        group = self._take()
        if group is None:
            raise StopAsyncIteration
        return group

    def _take(self) -> Tensor | None:
        if self._read < len(self._new):
            self._read += 1
            if self._job.paused:
                self._engine._notify()
            return self._new[self._read - 1]
        assert self._result is not None
        if self._result.error is not None:
            raise self._result.error
        return None


def _settle(some: "asyncio.Future[None]") -> None:
    if not some.done():
        some.set_result(None)


class Engine:
    """Runs requests of one model, `slots` at a time, with keys and values in `pages` pages of `page_size` positions.

    pages None: room for two whole contexts (memory is taken when it is used, on a CPU). queue: requests that may wait
    for a slot. Raises GenerationError.
    """

    def __init__(
        self,
        language_model: AudioLanguageModel,
        slots: int = 8,
        pages: int | None = None,
        *,
        page_size: int = PAGE,
        queue: int = 1024,
        static: bool | None = None,
    ) -> None:
        context = -(-language_model.config.max_position_embeddings // page_size) if page_size > 0 else 1
        pages = context * min(slots, CONTEXTS) if pages is None else pages
        for name, value, least in (
            ("slots", slots, 1),
            ("pages", pages, 1),
            ("page_size", page_size, MARK),
            ("queue", queue, 0),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise GenerationError(f"{name}: expected a number >= {least}, got {value!r}")
        if page_size % MARK:
            raise GenerationError(f"page_size: expected a multiple of {MARK} positions, got {page_size}")
        self.model, self.queue = language_model, queue
        self._blank = groups.text_group(0, language_model.config)
        self.pool = PagePool(pages, page_size)
        self._executor = Executor(language_model, pages, page_size, static)
        self._scheduler = Scheduler(self.pool, slots, beside=BESIDE[self._executor.static])
        self._handles: dict[int, Handle] = {}
        self._inbox: deque[Handle] = deque()
        self._count = 0
        self._changed = Condition()
        self._driven = False
        self._thread: Thread | None = None

    def run(self, requests: Sequence[Request]) -> list[Tensor]:
        """-> the new groups of every request, ids [1 + C, n * G], in their order. Raises the first error of any."""
        waiting = deque(requests)
        handles: list[Handle] = []
        try:
            while waiting:
                try:
                    handles.append(self.submit(waiting[0]))
                    waiting.popleft()
                except QueueFullError:
                    open_handle = next((handle for handle in handles if not handle.done), None)
                    if open_handle is None:
                        raise
                    open_handle.result()
            results = [handle.result() for handle in handles]
        except BaseException:
            for handle in handles:
                handle.cancel()
            self._settle()
            raise
        for result in results:
            if result.error is not None:
                raise result.error
        return [result.ids for result in results]

    def submit(self, request: Request, buffer: int = 0) -> Handle:
        """Takes a request; the handle gives its groups as they are made.

        buffer: with so many groups that were not iterated over the request pauses (0: it never does). Raises
        LanguageModelError and GenerationError for a request that cannot be run, QueueFullError if too many wait.
        """
        prompt, most = self._check(request)
        with self._changed:
            waiting = len(self._inbox) + len(self._scheduler.waiting)
            free = max(0, self._scheduler.slots - len(self._scheduler.running))
            if waiting >= self.queue + free:
                raise QueueFullError(f"{waiting} requests wait already, expected at most {self.queue}: try again later")
            self._count += 1
            handle = Handle(self, request, Job(self._count, len(prompt), []), prompt, most, buffer)
            self._inbox.append(handle)
            self._changed.notify_all()
        return handle

    def start(self) -> None:
        """Has a thread drive as long as there is something to do; it ends by itself."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._drive, name="mimo-audio-engine", daemon=True)
                self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether any request has not ended."""
        return bool(self._inbox or self._handles)

    # --- driving -----------------------------------------------------------------------------------------------------

    def _wait(self, handle: Handle, ready: Callable[[], bool]) -> None:
        """Returns when `ready`, and runs steps until then if nobody else does."""
        while not ready():
            if not self._turn(ready):
                continue
            with self._changed:  # all that could be run waits for somebody: a consumer, or a deadline
                if not ready() and not self._inbox:
                    self._changed.wait(timeout=0.05)

    def _turn(self, ready: Callable[[], bool]) -> bool:
        """One step, or a wait while another thread takes one; whether there was nothing to do."""
        with self._changed:
            if self._driven:
                self._changed.wait(timeout=1.0)
                return False
            if ready():
                return False
            self._driven = True
        try:
            return not self._step()
        finally:
            with self._changed:
                self._driven = False
                self._changed.notify_all()

    def _drive(self) -> None:
        idle = False
        while True:
            with self._changed:
                if not self.busy:
                    self._thread = None
                    return
                if idle:
                    self._changed.wait(timeout=0.05)
            idle = self._turn(lambda: not self.busy)

    def _settle(self) -> None:
        """Lets go of requests that were cancelled."""
        self._wait_for_driver()
        try:
            self._take_in()
            self._end_what_must()
        finally:
            with self._changed:
                self._driven = False
                self._changed.notify_all()

    def _wait_for_driver(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._driven)
            self._driven = True

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _listen(self, handle: Handle, wake: Callable[[], object]) -> None:
        handle._listeners.append(wake)
        if handle._read < len(handle._new) or handle._result is not None:  # in the meantime
            self._wake(handle)

    @staticmethod
    def _wake(handle: Handle) -> None:
        listeners, handle._listeners = handle._listeners, []
        for wake in listeners:
            try:
                wake()
            except RuntimeError:  # its event loop is closed: a consumer that has gone
                handle._cancelled = True

    # --- a step ------------------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Plans, executes and commits one step; False if there was nothing to do."""
        self._take_in()
        self._end_what_must()
        plan = self._scheduler.plan()
        if plan is None:
            return False
        try:
            drawn = self._executor.run(plan.copies, [self._rows(plan, index) for index in range(len(plan.works))])
        except Exception as error:  # of no one request: all that took part end, and the engine goes on
            told = error if isinstance(error, MimoError) else GenerationError(f"a step failed: {first_line(error)}")
            for work in plan.works:
                self._end(self._handles[work.key], "error", told)
            self._scheduler.restart()
            if isinstance(error, MimoError | RuntimeError | MemoryError):
                return True
            raise
        self._scheduler.commit(plan)
        results = iter(drawn)
        for work in plan.works:
            if work.draws:
                self._commit(self._handles[work.key], next(results))
        return True

    def _take_in(self) -> None:
        """New requests go to the scheduler; what was computed with other weights is forgotten."""
        if not self._inbox:
            return
        if self._executor.refresh():
            self._scheduler.restart()
        while self._inbox:
            handle = self._inbox[0]
            handle._job.marks += self._marks(handle)
            self._handles[handle._job.key] = handle
            self._scheduler.submit(handle._job)
            self._inbox.popleft()  # not before: a request is in one place or the other

    def _end_what_must(self) -> None:
        now = time.perf_counter()
        for handle in list(self._handles.values()):
            limit = handle.request.limits.deadline
            if handle._cancelled:
                self._end(handle, "cancelled")
            elif limit is not None and now - handle._came >= limit:
                self._end(handle, "deadline")
            else:
                handle._job.paused = bool(handle._buffer) and len(handle._new) - handle._read >= handle._buffer

    def _rows(self, plan: Plan, index: int) -> Rows:
        """A work item with the ids it is about."""
        work = plan.works[index]
        handle = self._handles[work.key]
        if handle._began is None:
            handle._began = time.perf_counter()
        end, prompt = work.start + work.count, len(handle._grid)
        if end <= prompt:
            grid = handle._grid[work.start : end]
        elif work.start >= prompt and work.count == 1:
            grid = handle._new[work.start - prompt].unsqueeze(0)
        else:
            grid = torch.cat([handle._grid, torch.stack(handle._new)])[work.start : end]
        if not work.draws:
            return Rows(grid, work.start, work.pages)
        number, limits = len(handle._new), handle.request.limits
        banned = tuple(limits.stop) if number < limits.min_new else ()
        return Rows(grid, work.start, work.pages, handle._draw, number, banned)

    def _commit(self, handle: Handle, drawn: Drawn) -> None:
        """A group more, and whether it is the last."""
        if drawn.error is not None:
            return self._end(handle, "error", drawn.error)
        limits, watch = handle.request.limits, handle._watch
        group = self._blank.clone()
        group[0] = drawn.token
        if drawn.codes is not None:
            group[1:] = drawn.codes
        number, ids = len(handle._new), group.numpy().tobytes()
        handle._new.append(group)
        if handle._first is None:
            handle._first = time.perf_counter()
        if drawn.codes is None:
            runaway = watch is not None and watch.text(drawn.token)
        else:
            handle._patches += 1
            runaway = watch is not None and watch.patch(ids)
        if drawn.token in limits.stop and number >= limits.min_new:
            return self._end(handle, "stop")
        if number + 1 == handle._most or handle._patches == limits.max_patches:
            return self._end(handle, "length")
        if runaway:
            return self._end(handle, "repetition")
        handle._job.known += 1
        text, codes = ids[: group.itemsize], ids[group[0].nbytes :]
        handle._digest.update(text + (bytes(len(codes)) if drawn.codes is None else codes))
        if handle._job.known % MARK == 0:
            handle._job.marks.append(handle._digest.digest())
        handle._job.paused = bool(handle._buffer) and len(handle._new) - handle._read >= handle._buffer
        self._wake(handle)

    def _end(self, handle: Handle, reason: FinishReason, error: MimoError | None = None) -> None:
        now = time.perf_counter()
        if handle._job.key in self._handles:
            del self._handles[handle._job.key]
            self._scheduler.finish(handle._job)
        made, empty = handle._new, (1 + self.model.config.audio_channels, 0)
        handle._result = Result(
            torch.cat(made, 1) if made else torch.empty(empty, dtype=torch.int64),
            reason,
            Usage(
                len(handle._grid),
                min(handle._job.reused, len(handle._grid)),
                len(made) - handle._patches,
                handle._patches,
                (handle._began or now) - handle._came,
                None if handle._first is None else handle._first - handle._came,
                now - handle._came,
            ),
            error,
        )
        handle._grid = handle._grid[:0]
        self._wake(handle)

    # --- requests ----------------------------------------------------------------------------------------------------

    def _check(self, request: Request) -> tuple[Tensor, int]:
        """The prompt as groups [P, 1 + C, G] and how many groups there can be. Raises MimoError."""
        config, limits, seed = self.model.config, request.limits, request.seed
        groups.check("prompt_ids", request.prompt_ids, config, self.model.special.empty, batched=False)
        prompt = groups.split(request.prompt_ids.cpu().long(), config.group_size)
        room = config.max_position_embeddings - len(prompt)
        if room < 1:
            raise GenerationError(
                f"prompt_ids: expected fewer groups than the context of {config.max_position_embeddings}, "
                f"got {len(prompt)}"
            )
        for token in limits.stop:
            if not 0 <= token < config.vocab_size:
                raise GenerationError(f"stop: expected text ids from 0 to {config.vocab_size - 1}, got {token!r}")
        if not isinstance(seed, int) or isinstance(seed, bool) or not -(1 << 63) <= seed < 1 << 63:
            raise GenerationError(f"seed: expected an integer of 64 bits, got {seed!r}")
        most, room = min(limits.max_new, room), self.pool.count * self.pool.size
        if len(prompt) + most - 1 > room:
            raise GenerationError(
                f"the request may take {len(prompt) + most - 1} positions, expected at most {room}, which the engine's "
                f"{self.pool.count} pages hold: lower max_new"
            )
        return prompt, most

    def _marks(self, handle: Handle) -> list[bytes]:
        """The marks of a prompt, groups [P, 1 + C, G]. What means nothing to the model does not count."""
        text = handle._grid[:, 0, :1]
        keys = torch.cat([text, handle._grid[:, 1:].flatten(1) * (text == self.model.special.empty)], 1).numpy()
        marks = []
        for start in range(0, len(keys), MARK):
            handle._digest.update(keys[start : start + MARK].tobytes())
            if start + MARK <= len(keys):
                marks.append(handle._digest.digest())
        return marks

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        for handle in [*self._handles.values(), *self._inbox]:
            handle.cancel()
        self._settle()
