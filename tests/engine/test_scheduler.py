"""The scheduler and its pages without a model: any requests, any pool, against a plain account of what lies where."""

from dataclasses import dataclass, field
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_audio.engine.contracts import Guard
from mimo_audio.engine.guard import Loop, Watch
from mimo_audio.engine.pages import MARK, PagePool
from mimo_audio.engine.scheduler import Job, Plan, Scheduler


def marks_of(ids: list[int]) -> list[bytes]:
    """The marks of a sequence."""
    return [
        blake2b(repr(ids[:end]).encode(), digest_size=16).digest() for end in range(MARK, len(ids) + 1, MARK)
    ]  # fmt: skip


@dataclass
class World:
    """Requests as lists of ids, and what every page holds: the sequence up to and with each of its positions."""

    scheduler: Scheduler
    ids: dict[int, list[int]] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    held: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    computed: int = 0

    def submit(self, key: int, ids: list[int]) -> None:
        self.ids[key] = list(ids)
        self.jobs[key] = Job(key, len(ids), marks_of(ids))
        self.scheduler.submit(self.jobs[key])

    def run(self, plan: Plan) -> list[int]:
        """Executes a plan on the ids; -> the requests that drew. A position must see its own sequence, whole."""
        size = self.scheduler.pool.size
        for copy in plan.copies:
            for at in range(copy.count):
                self.held[copy.target, at] = self.held[copy.source, at]
        for work in plan.works:
            ids = self.ids[work.key]
            for position in range(work.start, work.start + work.count):
                self.held[work.pages[position // size], position % size] = tuple(ids[: position + 1])
                self.computed += 1
        for work in plan.works:
            ids = self.ids[work.key]
            for position in range(work.start + work.count):
                assert self.held[work.pages[position // size], position % size] == tuple(ids[: position + 1])
            assert work.draws == (work.start + work.count == len(ids))
        return [work.key for work in plan.works if work.draws]

    def extend(self, key: int, new: int) -> None:
        self.ids[key].append(new)
        job = self.jobs[key]
        job.known += 1
        job.marks[:] = marks_of(self.ids[key])

    def finish(self, key: int) -> None:
        self.scheduler.finish(self.jobs.pop(key))


class Requests:
    """Strategies: prompts that often begin alike."""

    prompts = st.tuples(st.sampled_from([0, 5, 16, 33, 48, 70]), st.integers(1, 40), st.integers(0, 2)).map(
        lambda drawn: [7] * drawn[0] + [100 + drawn[2]] * drawn[1]
    )
    requests = st.lists(st.tuples(prompts, st.integers(1, 40), st.integers(0, 12)), min_size=1, max_size=10)


@settings(max_examples=60, deadline=None)
@given(
    Requests.requests,
    st.integers(1, 5),
    st.sampled_from([16, 32, 64]),
    st.integers(0, 8),
    st.sampled_from([(256, 32), (7, 3), (40, 1)]),
    st.data(),
)
def test_every_request_is_answered_with_what_it_would_see_alone(requests, slots, size, spare, rows, data) -> None:
    """Random arrivals, ends and pauses in a pool that is often too small for all of them at once."""
    most = max(len(prompt) + new for prompt, new, _ in requests)
    pool = PagePool(-(-most // size) + spare, size)
    world = World(Scheduler(pool, slots, *rows))
    arriving = dict(enumerate(requests))
    left = {key: new for key, (_, new, _) in arriving.items()}
    for step in range(5000):
        for key in [key for key, (_, _, when) in arriving.items() if when <= step]:
            world.submit(key, arriving.pop(key)[0])
        if step % 5 == 3 and world.jobs and data.draw(st.booleans()):
            key = data.draw(st.sampled_from(sorted(world.jobs)))
            if data.draw(st.booleans()):
                world.finish(key)  # cancelled
            else:
                world.jobs[key].paused = not world.jobs[key].paused
        if step % 7 == 6:
            for job in world.jobs.values():
                job.paused = False
        plan = world.scheduler.plan()
        if plan is None:
            if not arriving and not world.jobs:
                break
            continue
        assert sum(work.count for work in plan.works if work.count > 1) <= rows[0]
        assert len(world.scheduler.running) <= slots
        drew = world.run(plan)
        world.scheduler.commit(plan)
        for key in drew:
            left[key] -= 1
            if left[key] == 0:
                world.finish(key)
            else:
                world.extend(key, 200 + (len(world.ids[key]) % 3))
    assert not world.jobs
    assert not arriving
    assert pool.held == 0
    assert pool.available == pool.count


def drive(world: World, key: int, new: int = 1) -> None:
    """Runs until a request has made so many groups."""
    made = 0
    while made < new:
        plan = world.scheduler.plan()
        assert plan
        for drew in world.run(plan):
            made += drew == key
            world.extend(drew, 300)
        world.scheduler.commit(plan)


@pytest.mark.parametrize("length", [32, 48, 64])
def test_the_last_position_is_computed_though_the_pool_has_it(length) -> None:
    """A group is drawn from what is computed: a request that the pool holds whole computes one position, and draws."""
    world = World(Scheduler(PagePool(20, 32), 4))
    world.submit(0, [7] * length)
    drive(world, 0, 1)
    world.finish(0)
    world.submit(1, [7] * length)
    plan = world.scheduler.plan()
    assert plan is not None
    assert world.run(plan) == [1]
    assert world.jobs[1].computed + plan.rows == length
    assert 1 <= plan.rows <= MARK


def test_nothing_is_computed_twice() -> None:
    """Not what came before, not what was made, not what is being read this moment by another."""
    world = World(Scheduler(PagePool(20, 64), 4))
    world.submit(0, [7] * 200)
    drive(world, 0, 1)
    assert world.computed == 200
    world.submit(1, [7] * 200 + [8] * 30)  # 192 positions in three pages, and no more: the 200 end off a mark
    drive(world, 1, 1)
    assert world.jobs[1].reused == 192
    drive(world, 0, 60)
    world.finish(0)
    before = world.computed
    world.submit(2, [*world.ids[1], *[9] * 10])
    drive(world, 2, 1)
    assert world.jobs[2].reused // MARK == len(world.ids[1]) // MARK - (len(world.ids[1]) % MARK == 0)
    assert world.computed - before < 100
    before = world.computed
    for key in (3, 4):  # at once
        world.submit(key, [11] * 120 + [key] * 8)
    world.jobs[1].paused = world.jobs[2].paused = True
    plans = []
    while any(world.jobs[key].known - world.jobs[key].computed > 0 for key in (3, 4)):
        plan = world.scheduler.plan()
        plans.append(plan)
        world.run(plan)
        world.scheduler.commit(plan)
        for key in (3, 4):
            world.jobs[key].paused = world.jobs[key].computed >= 127
        if all(world.jobs[key].computed >= 128 for key in (3, 4)):
            break
    assert world.computed - before == 128 + 128 - 112


@pytest.mark.parametrize("streams", [1, 4, 7])
def test_reading_beside_those_who_make_groups_takes_few_rows_at_a_time(streams) -> None:
    """Two for each of them, and never fewer than 8: nobody waits for a long prompt."""
    world = World(Scheduler(PagePool(40, 64), 8))
    for key in range(streams):
        world.submit(key, [key] * 20)
    for key in range(streams):
        drive(world, key, 1)
    world.submit(9, [50] * 1000)
    room, steps = max(8, 2 * streams), 0
    while world.jobs[9].computed < 1000:
        plan = world.scheduler.plan()
        works = {work.key: work.count for work in plan.works}
        assert works == {**dict.fromkeys(range(streams), 1), 9: min(room, 1000 - world.jobs[9].computed)}
        for key in world.run(plan):
            world.extend(key, 3)
        world.scheduler.commit(plan)
        steps += 1
    assert steps == -(-1000 // room)


def test_what_was_not_used_for_longest_goes_first() -> None:
    pool = PagePool(4, 16)
    pages = [pool.take() for _ in range(4)]
    for number, page in enumerate(pages):
        pool.learn(page, bytes([number]))
    pool.release(pages[:2])
    pool.release(pages[2:])
    assert pool.take() == pages[1]  # the last page of the request that ended first
    assert pool.find(b"\1") is None
    assert pool.find(b"\0") == pages[0]
    pool.share(pages[0])
    assert pool.take() == pages[3]
    assert pool.take() == pages[2]
    assert pool.take() is None


@pytest.mark.parametrize("period", [1, 2, 7, 24])
def test_loops_are_found_when_they_are_long_enough(period) -> None:
    loop = Loop(24, 8, 64)
    items = [*range(1000, 1100), *list(range(period)) * 200]
    found = [number for number, item in enumerate(items) if loop.push(item)]
    assert found[0] - 99 == max(64, 8 * period)


def test_no_loop_in_what_changes() -> None:
    loop = Loop(24, 8, 64)
    assert not any(loop.push(number % 25) for number in range(1000))  # longer than the longest
    assert not any(loop.push(number % 9 if number % 60 else -number) for number in range(1000))


def test_more_patches_than_the_text_can_need() -> None:
    watch = Watch(Guard(most_patches=5))
    assert [watch.patch(bytes([number])) for number in range(6)] == [False] * 4 + [True] * 2
