"""Answers while they are made: events, sound without seams, many at once, schedules, cancelled and broken ones."""

import asyncio
import gc
import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
import torch
from torch import Tensor

from mimo_audio import MimoAudio
from mimo_audio.errors import GenerationError
from mimo_audio.prompts import tasks
from mimo_audio.tasks.streams import CHUNKS, AudioDelta, Completed, TextDelta, Thought
from mimo_audio.tasks.voices import Voices, _Rows

SHORT = {"max_new": 14}


def in_one_piece(model: MimoAudio, codes: Tensor) -> Tensor:
    """The wave of codes pushed at once, by a row of a decoder like the model's."""
    voice = Voices(model.audio_tokenizer, 8, 4, 4).open()
    return torch.cat([voice.push(codes), voice.finish()])


def events_of(stream) -> tuple[str, list[Tensor], Completed]:
    *events, last = list(stream)
    text = "".join(event.text for event in events if isinstance(event, TextDelta) and not event.thought)
    assert isinstance(last, Completed)
    return text, [event.wave for event in events if isinstance(event, AudioDelta)], last


def seeds_that_speak(model: MimoAudio, count: int) -> list[int]:
    """The golden model is a random one, which now and then makes no patch."""
    spoken = (n for n in range(100) if model.respond(tasks.tts(model.prompts, "Hello"), seed=n, **SHORT).stats.patches)
    return list(islice(spoken, count))


@pytest.mark.parametrize("chunks", CHUNKS)
def test_speech_is_that_of_the_task_without_seams(model: MimoAudio, chunks: str) -> None:
    whole = model.speak("Hello", **SHORT)
    text, waves, last = events_of(model.stream("speak", "Hello", chunks=chunks, **SHORT))
    assert torch.equal(last.result.codes, whole.codes)
    assert last.result.text == whole.text == text.strip()
    assert torch.equal(torch.cat(waves), in_one_piece(model, whole.codes))
    assert torch.equal(last.result.wave, torch.cat(waves))
    assert len(last.result.wave) == len(whole.wave)
    assert last.usage.patches == whole.stats.patches


def test_chunks_grow_as_the_schedule_says(model: MimoAudio) -> None:
    patch = model.sample_rate * 4 // 25
    sizes = [
        len(event.wave)
        for event in model.stream("speak", "Hello", chunks="ttfa", max_new=40)
        if isinstance(event, AudioDelta)
    ]
    assert sum(sizes[1:-1]) % patch == 0 or len(sizes) < 3
    assert sizes[0] < 2 * patch  # of one patch or two, less what the vocoder waits for


def test_what_follows_a_recording_joins_on_it(model: MimoAudio, wave: Tensor) -> None:
    whole = model.extend(wave, **SHORT)
    _, waves, last = events_of(model.stream("extend", wave, **SHORT))
    assert torch.equal(last.result.codes, whole.codes)
    before = model.encode(wave)
    before = torch.cat([before, before[:, -1:].expand(-1, -before.shape[1] % 4)], 1)
    joined = in_one_piece(model, torch.cat([before, whole.codes], 1))
    assert torch.equal(torch.cat(waves), joined[before.shape[1] * 960 :])


def test_written_answers(model: MimoAudio, wave: Tensor) -> None:
    text, waves, last = events_of(model.stream("transcribe", wave, **SHORT))
    assert waves == []
    assert last.result == model.transcribe(wave, **SHORT) == text.strip()
    assert last.usage.text + last.usage.patches <= 14
    answer = model.stream("chat", ["Hello"], **SHORT).result()
    assert answer.text == model.chat(["Hello"], **SHORT).text


def test_many_at_once_and_in_an_event_loop(model: MimoAudio) -> None:
    """In threads and as tasks of one loop: everyone's sound is its own."""
    seeds = seeds_that_speak(model, 6)
    wanted = [events_of(model.stream("speak", "Hello", seed=n, **SHORT)) for n in seeds]

    async def one(n: int) -> tuple[list[Tensor], Completed]:
        waves, last = [], None
        async for event in model.stream("speak", "Hello", seed=n, chunks="ttfa", **SHORT):
            if isinstance(event, AudioDelta):
                waves.append(event.wave)
            last = event
        return waves, last

    async def all_of_them() -> list:
        return await asyncio.gather(*map(one, seeds))

    for (waves, last), (_, known, whole) in zip(asyncio.run(all_of_them()), wanted, strict=True):
        assert torch.equal(last.result.codes, whole.result.codes)
        assert torch.equal(torch.cat(waves), torch.cat(known))
    found: dict[int, tuple] = {}
    threads = [
        threading.Thread(
            target=lambda n=n: found.update({n: events_of(model.stream("speak", "Hello", seed=n, **SHORT))})
        )
        for n in seeds
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, (_, known, whole) in zip(seeds, wanted, strict=True):
        assert torch.equal(found[n][2].result.codes, whole.result.codes)
        assert torch.equal(torch.cat(found[n][1]), torch.cat(known))


def test_results_without_events_are_one_batch(model: MimoAudio) -> None:
    seeds = seeds_that_speak(model, 5)
    streams = [model.stream("speak", "Hello", seed=n, **SHORT) for n in seeds]
    for n, stream in zip(seeds, streams, strict=True):
        whole = model.speak("Hello", seed=n, **SHORT)
        assert torch.equal(stream.result().wave, whole.wave)
    assert not model.engine.busy


def test_leaving_a_stream_ends_its_request(model: MimoAudio) -> None:
    with model.stream("speak", "Hello", max_new=4000, guard=False) as stream:
        next(iter(stream))
    assert model.stream("speak", "Hello", **SHORT).result().codes.shape[1] > 0
    cancelled = model.stream("speak", "Hello", max_new=4000, guard=False)
    events = iter(cancelled)
    for event in events:
        if isinstance(event, AudioDelta):
            break
    cancelled.cancel()
    *_, last = events
    assert last.result.stats.reason == "cancelled"
    assert not model.engine.busy
    assert model.engine.pool.held == 0


def test_thoughts_are_told_apart() -> None:
    for cut in range(1, 30):
        text = "a plan</think>\nan answer < b"
        thought, deltas = Thought(True), []
        for piece in (text[:cut], text[cut : cut + 3], text[cut + 3 :]):
            deltas += thought.push(piece)
        deltas += thought.finish()
        assert "".join(delta.text for delta in deltas if delta.thought) == "a plan"
        assert "".join(delta.text for delta in deltas if not delta.thought) == "\nan answer < b"
    assert Thought(False).push("x</think>") == [TextDelta("x</think>")]


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        (("sing", "x"), {}, "task: expected one of transcribe, speak, .*, got 'sing'"),
        (("speak", "x"), {"chunks": "fast"}, "chunks: expected one of ttfa, balanced, throughput, got 'fast'"),
        (("speak", "x"), {"on_text": print}, "on_text: expected none with a stream"),
        (("speak", "x"), {"deadline": -1}, "deadline: expected seconds above 0, got -1"),
    ],
)
def test_bad_streams(model: MimoAudio, arguments: tuple, named: dict, message: str) -> None:
    with pytest.raises(GenerationError, match=f"^{message}"):
        model.stream(*arguments, **named)


def test_a_listener_that_leaves_while_its_sound_is_decoded_frees_the_row_afterwards(model: MimoAudio) -> None:
    """Not before: the next stream would have that row, and codes of the one that left in its sound."""
    (seed,) = seeds_that_speak(model, 1)
    voices: list = []
    entered, leave = threading.Event(), threading.Event()

    def open_voice() -> object:
        voice = model._voices.open()
        push = voice.push

        def slow(codes: Tensor) -> Tensor:
            entered.set()
            assert leave.wait(20)
            assert voice._row >= 0, "the row was given back under a decoding thread"
            return push(codes)

        voice.push = slow
        voices.append(voice)
        return voice

    async def leaves() -> None:
        stream = model.stream("speak", "Hello", seed=seed, chunks="ttfa", max_new=60, guard=False)
        stream._open_voice = open_voice

        async def listen() -> None:
            async for _ in stream:
                pass

        listening = asyncio.create_task(listen())
        await asyncio.to_thread(entered.wait, 20)
        listening.cancel()
        await asyncio.wait([listening])
        assert voices[0]._row >= 0
        leave.set()

    asyncio.run(leaves())  # waits for the thread
    assert voices[0]._row == -1


class Slow:
    """A decoder whose push takes a while: the sum of what a row was ever given, or what cannot be decoded."""

    batch = 4

    def __init__(self) -> None:
        self.sums = [0] * self.batch

    def reset(self, row: int) -> None:
        self.sums[row] = 0

    def push(self, codes: list) -> list[Tensor | None]:
        time.sleep(0.0002)
        if any(given is not None and int(given[0, 0]) == 13 for given in codes):
            raise RuntimeError("planted")
        for row, given in enumerate(codes):
            self.sums[row] += 0 if given is None else int(given.sum())
        return [None if given is None else torch.tensor([self.sums[row]]) for row, given in enumerate(codes)]


class Yielding(threading.Condition):
    """Lets others go first whenever it is let go of."""

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        time.sleep(random.random() * 0.002)


def test_streams_that_are_decoded_together_get_their_own_sound() -> None:
    """Whoever finds its codes taken along by another waits for that one's result, whenever it looks."""
    rows = _Rows(Slow())
    rows._changed = Yielding()

    def stream(number: int) -> list[int]:
        row = rows.take()
        return [int(rows.decode(row, torch.full((1, 1), number))) for _ in range(60)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(stream, (1, 2, 3, 4)))
    assert found == [[number * n for n in range(1, 61)] for number in (1, 2, 3, 4)]


def test_a_decoder_that_fails_is_heard_of_by_all_who_took_part_and_goes_on() -> None:
    rows = _Rows(Slow())

    def stream(number: int) -> int:
        row, failures = rows.take(), 0
        for step in range(40):
            try:
                rows.decode(row, torch.full((1, 1), 13 if number == 1 and step % 4 == 0 else number))
            except RuntimeError as error:
                failures += str(error) == "planted"
        return failures

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(stream, range(1, 5)))
    assert found[0] >= 10
    assert rows._wanted == {}
    assert rows._made == {}
    assert not rows._busy


def test_a_stream_that_ended_is_forgotten_at_once(model: MimoAudio) -> None:
    """Its sound is large, and Python looks for circles seldom: a server would grow by what was said."""

    async def listen() -> list[weakref.ref]:
        stream = model.stream("transcribe", torch.zeros(24000), **SHORT)
        async for _ in stream:
            pass
        return [weakref.ref(stream), weakref.ref(stream._handle)]

    gc.collect()
    gc.disable()
    try:
        assert [left() for left in asyncio.run(listen())] == [None, None]
    finally:
        gc.enable()
