"""What the engine does next: which positions of which requests go through the model in one step. No tensors.

Plan, execute, commit: `plan` gives an immutable step, the executor runs it, `commit` counts it as done. A step that is
not committed has not happened: it is planned again.

Every request is a sequence of positions, of its prompt and then of what it has made. Positions up to `known` have ids,
those up to `computed` have keys and values in the pool. A request with one position to compute makes a group in every
step; one with more is being read. First come, first served: requests get slots in their order, and what is read is the
oldest first, as many positions as a step has room for, fewer beside requests that make groups. Where the pool has no
page left, the youngest gives up all of its pages and waits for its next turn; it is read again with what it has made,
and as a position's numbers depend on the positions before it alone, nobody can tell.
"""

from collections import deque
from dataclasses import dataclass, field

from mimo_audio.engine.pages import MARK, Copy, PagePool


@dataclass(eq=False)
class Job:
    """A request as the scheduler sees it; `marks` has an entry per MARK known positions."""

    key: int
    known: int
    marks: list[bytes]
    computed: int = 0
    reused: int = 0  # positions that were not computed, at its first reading
    pages: list[int] = field(default_factory=list)
    paused: bool = False  # makes no groups for now


@dataclass(frozen=True)
class Work:
    """Positions start .. start + count - 1 of a request; `draws`: after the last of them a group is made."""

    key: int
    start: int
    count: int
    draws: bool
    pages: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A step: pages to copy, one after the other, then positions, all at once."""

    copies: tuple[Copy, ...]
    works: tuple[Work, ...]

    @property
    def rows(self) -> int:
        """Positions in all."""
        return sum(work.count for work in self.works)


class Scheduler:
    """`slots` requests at once; a step has at most `rows` positions of prompts.

    Beside requests that make groups it has two for each of them, `beside` at least: a position of a prompt costs less
    than a group, so the groups wait for less than two steps' time, however long the prompt is.
    """

    def __init__(self, pool: PagePool, slots: int, rows: int = 256, beside: int = 8) -> None:
        self.pool, self.slots, self.rows, self.beside = pool, slots, rows, beside
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []  # oldest first

    def submit(self, job: Job) -> None:
        """Puts a request at the end of the queue."""
        self.waiting.append(job)

    def finish(self, job: Job) -> None:
        """Takes a request out, wherever it is."""
        if job in self.running:
            self.running.remove(job)
            self._give_up_pages(job)
        else:
            self.waiting.remove(job)

    def restart(self) -> None:
        """Nothing that was computed counts any more."""
        for job in self.running:
            self._give_up_pages(job)
        self.pool.forget()

    def plan(self) -> Plan | None:
        """The next step; None if there is nothing to do."""
        self._admit()
        copies: list[Copy] = []
        works: list[Work] = []
        for job in [job for job in self.running if job.known - job.computed == 1 and not job.paused]:
            if job in self.running and self._make_room(job, 1):  # an older one may have taken its pages
                works.append(self._work(job, 1))
        left = min(self.rows, max(self.beside, 2 * len(works))) if works else self.rows
        ahead: set[bytes] = set()  # marks that older requests are about to reach
        for job in [job for job in self.running if job.known - job.computed > 1]:
            if left < 1:
                break
            if job not in self.running:
                continue
            if not ahead.isdisjoint(job.marks[job.computed // MARK :][:1]):
                continue  # what it would read is being read: it takes that over when it is there
            self._reuse(job, copies)
            ahead.update(job.marks[job.computed // MARK :])
            count = min(left, job.known - job.computed)
            before = len(self.running)
            if self._make_room(job, count):
                works.append(self._work(job, count))
                left -= count
            if len(self.running) < before:
                keys = {job.key for job in self.running}
                works = [work for work in works if work.key in keys]
        kept = {page for work in works for page in work.pages}
        return Plan(tuple(copy for copy in copies if copy.target in kept), tuple(works)) if works else None

    def commit(self, plan: Plan) -> None:
        """The step has been run."""
        jobs = {job.key: job for job in self.running}
        for work in plan.works:
            job = jobs.get(work.key)
            if job is None or job.computed != work.start:  # it has gone, or begins anew
                continue
            job.computed += work.count
            for number in range(work.start // MARK, min(job.computed // MARK, len(job.marks))):
                self.pool.learn(job.pages[number * MARK // self.pool.size], job.marks[number])

    def _work(self, job: Job, count: int) -> Work:
        return Work(job.key, job.computed, count, job.computed + count == job.known, tuple(job.pages))

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            job = self.waiting[0]
            if self.running and self.pool.available < job.known // self.pool.size + 1:
                return  # what was made room for one more position of: it would only take pages away again
            self.running.append(self.waiting.popleft())

    def _reuse(self, job: Job, copies: list[Copy]) -> None:
        """Takes over what the pool holds already; the last position is computed in any case, a group follows it."""
        pool, most = self.pool, job.known - 1
        if job.computed % pool.size or len(job.pages) * pool.size > job.computed:
            return
        start = job.computed
        while job.computed + pool.size <= most:
            page = pool.find(job.marks[(job.computed + pool.size) // MARK - 1])
            if page is None:
                break
            pool.share(page)
            job.pages.append(page)
            job.computed += pool.size
        for number in range(min(most, job.computed + pool.size - 1) // MARK, job.computed // MARK, -1):
            source = pool.find(job.marks[number - 1])
            if source is None:
                continue
            pool.share(source)  # so that it is not taken to write to
            target = pool.take()
            if target is not None:
                copies.append(Copy(source, target, number * MARK - job.computed))
                job.pages.append(target)
                job.computed = number * MARK
            pool.release([source])
            break
        job.reused += job.computed - start

    def _make_room(self, job: Job, count: int) -> bool:
        """Gives the job pages for `count` more positions, at the cost of younger ones; False if it gave up its own."""
        while len(job.pages) * self.pool.size < job.computed + count:
            page = self.pool.take()
            if page is not None:
                job.pages.append(page)
                continue
            youngest = self.running[-1]
            self._give_up_pages(youngest)
            if youngest is job or len(self.running) > 1:
                self.running.remove(youngest)
                self.waiting.appendleft(youngest)
            if youngest is job:
                return False
        return True

    def _give_up_pages(self, job: Job) -> None:
        self.pool.release(job.pages)
        job.pages, job.computed = [], 0
