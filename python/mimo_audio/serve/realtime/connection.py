"""A session on a WebSocket: what it decides is done with a model, what the model makes goes back into it.

Everything runs in one event loop; encoding, voice activity and decoding take threads, generation is the engine's. What
is to be sent waits in a queue of bounded size: a client that does not read pauses its own answers, nobody else's.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor

from mimo_audio.engine import Usage
from mimo_audio.errors import MimoError
from mimo_audio.prompts import Turn
from mimo_audio.serve.errors import ServeError
from mimo_audio.serve.realtime.errors import EventError
from mimo_audio.serve.realtime.items import History, Item, fitted, history
from mimo_audio.serve.realtime.session import Answer, Event, Session, Spent
from mimo_audio.serve.realtime.settings import Settings
from mimo_audio.serve.realtime.sound import RATE
from mimo_audio.serve.realtime.vad import Detector
from mimo_audio.serve.service import Answer as Made
from mimo_audio.serve.service import Service
from mimo_audio.tasks.streams import AudioDelta, TextDelta

LOG = logging.getLogger(__name__)
MOST_UNSENT = 1 << 20  # bytes of events that wait for a client: some 16 s of sound
SESSION_SECONDS = 3600
FAULT = "the server failed to answer; its log says why"
TICK = 0.1  # seconds
MOST_ANSWER = 1024  # positions that are kept free for an answer, at most a quarter of the context
TRANSCRIPT = 32, 0.5  # tokens at most, and more for each code frame: 12 a second


class Wire(Protocol):
    """A WebSocket that is open. Both raise ConnectionError when it is not any more."""

    async def receive(self) -> str | bytes:
        """The next message."""

    async def send(self, text: str) -> None:
        """A message; waits while the client does not read."""

    async def close(self) -> None:
        """Nothing more is sent or received."""


class Outbox:
    """Events that wait to be sent."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, str | None, int]] = deque()
        self._bytes = 0
        self._some, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()

    def put(self, event: Event, samples: int) -> None:
        """Queues an event, and how many samples of sound are in it."""
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        self._waiting.append((text, event.get("response_id") if samples else None, samples))
        self._count(len(text))

    def take_back(self, response_id: str) -> int:
        """Forgets the sound of a response; -> samples."""
        kept = [entry for entry in self._waiting if entry[1] != response_id]
        samples = sum(entry[2] for entry in self._waiting) - sum(entry[2] for entry in kept)
        self._waiting = deque(kept)
        self._count(sum(len(entry[0]) for entry in kept) - self._bytes)
        return samples

    async def next(self) -> str:
        """Waits for an event and takes it."""
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        text = self._waiting.popleft()[0]
        self._count(-len(text))
        return text

    async def room(self) -> None:
        """Waits until the client has taken enough."""
        await self._room.wait()

    def _count(self, change: int) -> None:
        self._bytes += change
        self._some.set()
        if self._bytes < MOST_UNSENT:
            self._room.set()
        else:
            self._room.clear()


class Connection:
    """Runs one session until its client goes, or an hour has passed."""

    def __init__(self, wire: Wire, service: Service, settings: Settings | None = None) -> None:
        self._wire, self._service, self._model = wire, service, service.model
        self._outbox = Outbox()
        self._detector: Detector | None = None
        self._made: dict[str, Made] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._encoding, self._making = asyncio.Lock(), asyncio.Lock()
        self._answers = 0
        self._over = False
        self.session = Session(
            self,
            service.name,
            settings or Settings(),
            self._model.prompts.group_size,
            self._model.most_seconds / 2,  # the other half is for the answer, and for what came before
            self._check_voice,
            time.monotonic,
            int(time.time()) + SESSION_SECONDS,
        )

    async def run(self) -> None:
        """Until the connection ends."""
        self.session.open()
        for work in (self._send_all(), self._tick()):
            self._start(work)
        try:
            await asyncio.wait_for(self._read_all(), SESSION_SECONDS)
        except asyncio.TimeoutError:
            most = f"a session lasts {SESSION_SECONDS // 60} minutes at most"
            self.session.refuse(EventError(most, code="session_expired"), None)
            await asyncio.sleep(TICK)  # so that it is told
        finally:
            self._over = True
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # What the session asks for

    def send(self, event: Event, samples: int = 0) -> None:
        """See Desk."""
        self._outbox.put(event, samples)

    def unsend(self, response_id: str) -> int:
        """See Desk."""
        return self._outbox.take_back(response_id)

    def generate(self, answer: Answer) -> None:
        """See Desk."""
        self._start(self._make(answer))

    def cancel(self, answer: Answer) -> None:
        """See Desk."""
        if made := self._made.get(answer.id):
            made.cancel()

    def transcribe(self, item: Item, settings: Settings) -> None:
        """See Desk."""
        self._start(self._transcribe(item, settings))

    def _check_voice(self, name: str) -> None:
        try:
            self._service.voices.find(name)
        except MimoError as error:
            raise EventError(f"voice: {error}", "voice") from error

    # In and out

    async def _read_all(self) -> None:
        with suppress(ConnectionError):
            while True:
                await self._read(await self._wire.receive())
                await self._outbox.room()

    async def _read(self, message: str | bytes) -> None:
        try:
            event = json.loads(message)
        except (ValueError, RecursionError):
            self.session.refuse(EventError("expected one JSON object in a text message", code="invalid_json"), None)
            return
        try:
            await self._take(event)
        except Exception:  # a fault of ours is no reason to hang up
            LOG.exception("an event failed")
            self.session.refuse(EventError(FAULT, code="server_error"), event)

    async def _take(self, event: object) -> None:
        if not isinstance(event, dict) or event.get("type") != "input_audio_buffer.append":
            self.session.receive(event)
            return
        try:
            wave = self.session.read_append(event)
            if self.session.settings.detection is None:
                self._detector, speech = None, list[float]()
            else:
                if self._detector is None:
                    self._detector = Detector()
                speech = await asyncio.to_thread(self._detector.push, wave)
            self.session.hear(wave, speech)
        except EventError as error:
            self.session.refuse(error, event)

    async def _send_all(self) -> None:
        try:
            while not self._over:  # a cancellation may get lost in wait_for (Python 3.10, 3.11)
                text = await self._outbox.next()
                await asyncio.wait_for(self._wire.send(text), self._service.limits.stall_seconds)
        except (ConnectionError, asyncio.TimeoutError):
            await self._wire.close()  # so that the reader ends, too

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.session.tick()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # With the model

    async def _make(self, answer: Answer) -> None:
        """An answer, after the one before it has given its codes."""
        async with self._making:
            if answer is not self.session.answer:
                return
            try:
                await self._generate(answer)
            except EventError as error:
                self.session.fail(answer, error.message, error.code)
            except ServeError as error:
                self.session.fail(answer, str(error), error.code or "server_error")
            except MimoError as error:
                self.session.fail(answer, str(error))
            except Exception:
                LOG.exception("an answer failed")
                self.session.fail(answer, FAULT)
            finally:
                self._made.pop(answer.id, None)

    async def _generate(self, answer: Answer) -> None:
        settings, model = answer.settings, self._model
        speech = settings.modality == "audio"
        await self._encode(answer.items)
        voice = self._service.voices.find(settings.voice) if speech else None
        said = history(answer.items, settings.instructions, speech, model.prompts.group_size)
        said = self._fitted(said, voice, settings)
        if answer is not self.session.answer:
            return
        self._answers += 1
        opening = self._service.open(
            "chat",
            list(said.turns),
            voice=voice,
            system=said.system,
            speech=speech,
            chunks="ttfa",
            seed=self._answers,
            max_new=settings.most_tokens,
        )
        async with opening as made:
            self._made[answer.id] = made
            if answer is not self.session.answer:  # cancelled meanwhile
                made.cancel()
            async for event in made:
                if answer is self.session.answer:
                    await self._outbox.room()
                if isinstance(event, TextDelta):
                    self.session.text(answer, event.text)
                elif isinstance(event, AudioDelta):
                    self.session.sound(answer, event.wave.numpy())
                else:
                    result = event.result
                    codes = result.speech.codes if result.speech is not None else None
                    spent = self._spent(event.usage, said, voice)
                    self.session.complete(answer, result.text, codes, result.stats.reason, spent)

    async def _transcribe(self, item: Item, settings: Settings) -> None:
        try:
            await self._encode([item])
            codes = item.parts[0].codes
            if codes is None:  # forgotten, or deleted
                return
            most = TRANSCRIPT[0] + int(codes.shape[1] * TRANSCRIPT[1])
            async with self._service.open("transcribe", codes, language=settings.language, max_new=most) as made:
                async for event in made:
                    await self._outbox.room()
                    if isinstance(event, TextDelta):
                        self.session.transcribed(item, event.text)
                    elif not isinstance(event, AudioDelta):
                        self.session.transcribed(item, None, event.result)
        except MimoError as error:
            self.session.transcribed(item, None, error=str(error))
        except Exception:
            LOG.exception("a transcript failed")
            self.session.transcribed(item, None, error=FAULT)

    async def _encode(self, items: Iterable[Item]) -> None:
        """Gives all sound its codes."""
        async with self._encoding:
            for part in [part for item in items for part in item.parts]:
                if part.codes is None and part.samples and part.kind in ("input_audio", "output_audio"):
                    wave = torch.from_numpy(part.wave)
                    part.codes = await self._service.encode((wave, RATE))

    def _positions(self, turn: Turn) -> int:
        text = 0 if turn.text is None else len(self._model.text_tokenizer.encode(turn.text, specials=False))
        return text + self._patches(turn.audio) + 8  # marks of a turn and of its sound

    def _patches(self, codes: Tensor | None) -> int:
        return 0 if codes is None else -(-codes.shape[1] // self._model.prompts.group_size)

    def _fitted(self, said: History, voice: Tensor | None, settings: Settings) -> History:
        """What fits into the model's context with an answer."""
        context = self._model.language_model.config.max_position_embeddings
        free = min(settings.most_tokens or MOST_ANSWER, context // 4)
        before = self._positions(Turn("system", said.system, voice))
        room, truncation = context - free - before, settings.truncation
        room = room if truncation.most is None else min(room, truncation.most)
        return fitted(said, self._positions, room, truncation.retention if truncation.allowed else None)

    def _spent(self, usage: Usage, said: History, voice: Tensor | None) -> Spent:
        heard = self._patches(voice) + sum(self._patches(turn.audio) for turn in said.turns)
        return Spent(usage.prompt, usage.cached, heard, usage.text, usage.patches)
