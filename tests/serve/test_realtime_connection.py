"""A realtime session with a real model behind it: what the model is really asked, and who waits for whom."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")

import mimo_audio
from mimo_audio.prompts import Turn, tasks
from mimo_audio.serve.realtime import connection as module
from mimo_audio.serve.realtime.connection import Connection
from mimo_audio.serve.service import Service

GOLDEN = Path(__file__).parents[1] / "golden" / "ckpt"
PATCH_MS = 160
Event = dict[str, Any]


class Line:
    """A WebSocket in memory; `held` stands for a client that does not read."""

    def __init__(self, held: bool = False) -> None:
        self.inbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.events: list[Event] = []
        self.changed = asyncio.Event()
        self.held = held

    async def receive(self) -> str | bytes:
        message = await self.inbox.get()
        if message is None:
            raise ConnectionResetError
        return message

    async def send(self, text: str) -> None:
        if self.held:
            await asyncio.Event().wait()
        self.events.append(json.loads(text))
        self.changed.set()

    async def close(self) -> None:
        self.inbox.put_nowait(None)

    def give(self, kind: str, **fields: Any) -> None:
        self.inbox.put_nowait(json.dumps({"type": kind, **fields}))

    def say(self, text: str) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        self.give("conversation.item.create", item=item)

    async def until(self, kind: str, count: int = 1) -> Event:
        async def wait() -> Event:
            while True:
                found = [event for event in self.events if event["type"] == kind]
                if len(found) >= count:
                    return found[count - 1]
                self.changed.clear()
                await self.changed.wait()

        return await asyncio.wait_for(wait(), 60)


class Watched(Service):
    """A service that keeps what its model was asked."""

    def __init__(self) -> None:
        folders = GOLDEN / "A_lm_s0", GOLDEN / "A_tok_s0"
        model = mimo_audio.load(*folders, device="cpu")
        super().__init__(lambda: model, "tiny")
        self.asked: list[torch.Tensor] = []
        submit = model.engine.submit

        def watched(request: Any, *rest: Any) -> Any:
            self.asked.append(request.prompt_ids)
            return submit(request, *rest)

        model.engine.submit = watched  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def service() -> Watched:
    return Watched()


def talk(service: Service, script: Callable[[Line], Awaitable[None]], line: Line | None = None) -> None:
    """Runs a client's script on a session."""

    async def run() -> None:
        if not service.ready:
            await service.start()
        wire = line or Line()
        session = asyncio.create_task(Connection(wire, service).run())
        try:
            await script(wire)
        finally:
            await wire.close()
            await asyncio.wait_for(session, 20)

    asyncio.run(run())


def heard_in(events: list[Event]) -> int:
    """Samples of all audio deltas."""
    data = [e["delta"] for e in events if e["type"] == "response.output_audio.delta"]
    return sum(len(base64.b64decode(delta)) // 2 for delta in data)


@pytest.mark.parametrize("interrupted", [False, True])
def test_after_truncation_the_model_is_asked_what_was_heard_and_nothing_else(
    service: Watched, interrupted: bool
) -> None:
    async def script(line: Line) -> None:
        line.give("session.update", session={"type": "realtime", "max_output_tokens": 60, "instructions": "Be brief."})
        line.say("Hello")
        line.give("response.create")
        created = await line.until("response.output_item.added")
        item = created["item"]["id"]
        if interrupted:
            await line.until("response.output_audio.delta", 2)
            line.give("response.cancel")
        done = (await line.until("response.done"))["response"]
        assert done["status"] == ("cancelled" if interrupted else done["status"])
        sent_ms = heard_in(line.events) * 1000 // 24000
        assert sent_ms >= 2 * PATCH_MS
        heard_ms = sent_ms // 2
        line.give("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=heard_ms)
        await line.until("conversation.item.truncated")
        asked = len(service.asked)
        line.say("And now?")
        line.give("response.create")
        await line.until("response.created", 2)
        while len(service.asked) == asked:
            await asyncio.sleep(0.01)
        line.give("conversation.item.retrieve", item_id=item)
        shown = (await line.until("conversation.item.retrieved"))["item"]["content"][0]
        ids = service.asked[asked]
        frames = heard_ms // PATCH_MS * 4
        assert frames > 0
        model = service.model
        # What the first answer was, is in the ids of the second prompt only as far as it was heard.
        answer = Turn("assistant", shown["transcript"], codes_of(model, ids, frames))
        turns = [Turn("user", "Hello"), answer, Turn("user", "And now?")]
        expected = tasks.spoken_dialogue(model.prompts, turns, system_prompt="Be brief.").ids
        assert torch.equal(ids, expected)
        assert len(base64.b64decode(shown["audio"])) // 2 == heard_ms * 24
        said = done["output"][0]["content"][0]["transcript"]
        assert said.strip().startswith(shown["transcript"])
        assert len(shown["transcript"]) < len(said)

    talk(service, script)


def codes_of(model: mimo_audio.MimoAudio, ids: torch.Tensor, frames: int) -> torch.Tensor:
    """The codes of speech in a prompt; there are exactly so many."""
    speech = ids[1:, ids[1] != model.prompts.layout.empty_ids[0]]
    assert speech.shape[1] == frames
    return speech


def test_the_codes_that_stay_are_those_that_were_spoken(service: Watched) -> None:
    async def script(line: Line) -> None:
        line.give("session.update", session={"type": "realtime", "max_output_tokens": 60})
        line.say("Hello")
        line.give("response.create")
        await line.until("response.done")
        item = (await line.until("response.output_item.added"))["item"]["id"]
        line.give("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=PATCH_MS)
        asked = len(service.asked)
        line.say("More")
        line.give("response.create")
        await line.until("response.done", 2)
        first = service.model.chat("Hello", speech=True, seed=1, max_new=60)
        assert first.speech is not None
        assert torch.equal(codes_of(service.model, service.asked[asked], 4), first.speech.codes[:, :4])

    talk(service, script)


def test_speech_is_heard_answered_and_transcribed(service: Watched) -> None:
    pytest.importorskip("silero_vad", reason="the extra [serve] is not installed")
    import soundfile

    wave, _ = soundfile.read(Path(mimo_audio.__file__).parent / "assets" / "sentence.wav", dtype="int16")
    sound = np.concatenate([np.zeros(6000, np.int16), wave[:36000], np.zeros(18000, np.int16)]).astype("<i2").tobytes()

    async def script(line: Line) -> None:
        listening = {"transcription": {"language": "en"}}
        line.give(
            "session.update", session={"type": "realtime", "max_output_tokens": 30, "audio": {"input": listening}}
        )
        for start in range(0, len(sound), 9600):
            line.give("input_audio_buffer.append", audio=base64.b64encode(sound[start : start + 9600]).decode())
        await line.until("input_audio_buffer.speech_started")
        await line.until("conversation.item.input_audio_transcription.completed")
        done = (await line.until("response.done"))["response"]
        assert done["usage"]["input_token_details"]["audio_tokens"] >= 1500 // PATCH_MS
        assert heard_in(line.events) > 0

    talk(service, script)


def test_what_is_no_event_is_refused_and_the_session_goes_on(service: Watched) -> None:
    async def script(line: Line) -> None:
        for message in (b"\0\xff", "{", "[" * 100000, "5", '{"type": "input_audio_buffer.append"}', '{"type": 5}'):
            line.inbox.put_nowait(message)
        await line.until("error", 6)
        line.give("session.update", session={"type": "realtime", "output_modalities": ["text"], "max_output_tokens": 5})
        line.say("Hello")
        line.give("response.create")
        done = (await line.until("response.done"))["response"]
        assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        assert done["output"][0]["content"][0]["type"] == "output_text"

    talk(service, script)


def test_a_client_that_does_not_read_stalls_nobody_and_nothing_piles_up(
    service: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_UNSENT", 30_000)

    async def script(line: Line) -> None:
        deaf = Line(held=True)
        session = Connection(deaf, service)
        running = asyncio.create_task(session.run())
        deaf.say("Hello")
        deaf.give("response.create")
        for _ in range(200):
            deaf.say("Hello")
        line.give("session.update", session={"type": "realtime", "max_output_tokens": 40})
        line.say("Hello")
        line.give("response.create")
        await line.until("response.done")
        await asyncio.sleep(0.2)
        assert session._outbox._bytes < 30_000 + 60_000  # what was there, and an event or two
        assert deaf.inbox.qsize() > 0  # its own events wait
        await deaf.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    talk(service, script)
