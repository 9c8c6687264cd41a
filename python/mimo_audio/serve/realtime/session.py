"""A realtime session: client events, sound and what the model makes go in, server events and work come out.

Pure: it knows no socket, no model and no thread. What is to be done is handed to `Desk`; what comes of it is told with
`text`, `sound`, `complete`, `fail`, `transcribed`. Time comes from a clock that is given.
"""

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mimo_audio.serve.realtime.errors import EventError, object_of, shown, text_of, unsupported, whole, wrong
from mimo_audio.serve.realtime.items import Item, Part, read_bytes, read_item
from mimo_audio.serve.realtime.settings import Settings
from mimo_audio.serve.realtime.sound import RATE, Decoder, Encoder, Wave
from mimo_audio.serve.realtime.vad import LEAST, STEP, Turns

LEAST_MS = 100  # of sound that makes a turn
MOST_BYTES = 15 << 20  # of one append
MOST_ITEMS = 2000
Event = dict[str, Any]


@dataclass(eq=False)
class Answer:
    """A response in the making, or made. `items`: what it answers. `sent`: when its first sound was sent."""

    settings: Settings
    items: list[Item]
    item: Item
    stored: bool  # it becomes part of the conversation
    metadata: dict[str, str] | None
    id: str = field(default_factory=lambda: "resp_" + secrets.token_hex(10))
    status: str = "in_progress"
    sent: float | None = None
    samples: int = 0
    encoder: Encoder | None = None

    @property
    def part(self) -> Part:
        """What it says."""
        return self.item.parts[0]


@dataclass(frozen=True)
class Spent:
    """Tokens of an answer: positions read (those known already, those of sound), text tokens and patches made."""

    prompt: int = 0
    cached: int = 0
    heard: int = 0
    text: int = 0
    patches: int = 0

    def shown(self) -> Event:
        """OpenAI's usage object."""
        return {
            "total_tokens": self.prompt + self.text + self.patches,
            "input_tokens": self.prompt,
            "output_tokens": self.text + self.patches,
            "input_token_details": {
                "cached_tokens": self.cached,
                "text_tokens": self.prompt - self.heard,
                "audio_tokens": self.heard,
            },
            "output_token_details": {"text_tokens": self.text, "audio_tokens": self.patches},
        }


class Desk(Protocol):
    """Who carries out what a session decides. Nothing of this waits."""

    def send(self, event: Event, samples: int = 0) -> None:
        """A server event, and how many samples of sound it carries."""

    def unsend(self, response_id: str) -> int:
        """Takes back sound of a response that is not on its way yet; -> samples."""

    def generate(self, answer: Answer) -> None:
        """Begins an answer: `text`, `sound`, and in the end `complete` or `fail`."""

    def cancel(self, answer: Answer) -> None:
        """Ends it; its codes are still to come (`complete`)."""

    def transcribe(self, item: Item, settings: Settings) -> None:
        """The words of what the user said: `transcribed`."""


class Session:
    """One conversation with one client."""

    def __init__(
        self,
        desk: Desk,
        model: str,
        settings: Settings,
        group_size: int,
        most_seconds: float,
        check_voice: Callable[[str], object],
        clock: Callable[[], float],
        expires_at: int | None = None,
    ) -> None:
        """check_voice raises EventError for a voice that is not there; most_seconds: of sound in one turn."""
        self.id, self.settings, self.model = "sess_" + secrets.token_hex(10), settings, model
        self.items: list[Item] = []
        self.answer: Answer | None = None  # the one in the making
        self._desk, self._group_size, self._most_seconds = desk, group_size, most_seconds
        self._check_voice, self._clock, self._expires_at = check_voice, clock, expires_at
        self._conversation = "conv_" + secrets.token_hex(10)
        self._number = 0
        self._played: Answer | None = None  # the last whose sound was sent
        self._playing = False
        self._wanted = False  # an answer, as soon as the one in the making is there
        self._idle_since: float | None = None
        self._decoder = Decoder(settings.input_format)
        self._buffer: list[Wave] = []
        self._start = self._end = 0  # samples of the session at which the buffer begins and ends
        self._turns, self._origin = Turns(), 0  # windows are counted from that sample on
        self._turn: tuple[str, int] | None = None  # the id of the item to be, and the sample at which it begins

    def open(self) -> None:
        """The first events."""
        self._send("session.created", session=self._shown())
        self._send("conversation.created", conversation={"id": self._conversation, "object": "realtime.conversation"})

    def receive(self, event: object) -> None:
        """A client's event; what is wrong with it is answered by an `error` event."""
        try:
            self._receive(event)
        except EventError as error:
            self.refuse(error, event)

    def refuse(self, error: EventError, event: object) -> None:
        """Tells the client what is wrong with its event."""
        self._send("error", error=error.described(event.get("event_id") if isinstance(event, dict) else None))

    def _receive(self, event: object) -> None:
        if not isinstance(event, dict):
            raise wrong("event", "a JSON object", event)
        kind = event.get("type")
        fields, do = EVENTS.get(kind, ((), None)) if isinstance(kind, str) else ((), None)
        if do is None:
            raise EventError(f"type: expected one of {', '.join(EVENTS)}, got {shown(kind)}", "type", "unknown_event")
        if event.get("event_id") is not None:
            text_of(event["event_id"], "event_id", 512)
        do(self, object_of(event, "event", ("type", "event_id", *fields)))

    # Sound in

    def read_append(self, event: Event) -> Wave:
        """The sound of an input_audio_buffer.append. Raises EventError."""
        object_of(event, "event", ("type", "event_id", "audio"))
        given = event.get("audio")
        if isinstance(given, str) and len(given) > MOST_BYTES:
            raise EventError(f"audio: expected at most {MOST_BYTES >> 20} MB, got {len(given) >> 20} MB", "audio")
        return self._decoder.push(read_bytes(given, "audio"))

    def hear(self, wave: Wave, speech: list[float]) -> None:
        """Sound for the input buffer, and the probabilities of speech of the windows that it completes.

        Raises EventError if the buffer is full.
        """
        room = int(self._most_seconds * RATE) - (self._end - self._start)
        detection = self.settings.detection
        if len(wave) > room and (detection is None or not self._turns.speaking):
            most = f"{self._most_seconds:.0f} s"
            raise EventError(
                f"audio: expected at most {most} in the buffer: commit or clear it", "audio", "buffer_full"
            )
        self._buffer.append(wave)
        self._end += len(wave)
        if detection is None:
            return
        for probability in speech:
            change = self._turns.push(probability, detection)
            if change is not None and change[0] == "start":
                self._speech_started(change[1])
            elif change is not None:
                self._speech_stopped(self._origin + change[1] * STEP)
        if self._turn is not None and self._end - self._turn[1] > self._most_seconds * RATE:
            self._turns.reset()
            self._speech_stopped(self._end)
        if self._turn is None:
            self._drop(self._end - detection.prefix_padding_ms * RATE // 1000 - 2 * LEAST * STEP)

    def _speech_started(self, window: int) -> None:
        detection = self.settings.detection
        assert detection is not None
        start = self._origin + window * STEP - detection.prefix_padding_ms * RATE // 1000
        start = max(start, self._start)
        self._turn = "item_" + secrets.token_hex(10), start
        self._idle_since = None
        self._send("input_audio_buffer.speech_started", audio_start_ms=start * 1000 // RATE, item_id=self._turn[0])
        if self.answer is not None and detection.interrupt_response:
            self._cancel("turn_detected")

    def _speech_stopped(self, end: int) -> None:
        assert self._turn is not None
        identity, start = self._turn
        detection = self.settings.detection
        self._send("input_audio_buffer.speech_stopped", audio_end_ms=end * 1000 // RATE, item_id=identity)
        self._drop(start)
        self._commit(identity, min(end, self._end))
        if detection is not None and detection.create_response and self.settings.kind == "realtime":
            self._want()

    def _drop(self, until: int) -> None:
        """The buffer begins at that sample of the session, or later."""
        while self._buffer and self._start + len(self._buffer[0]) <= until:
            self._start += len(self._buffer.pop(0))
        if self._buffer and self._start < until:
            self._buffer[0] = self._buffer[0][until - self._start :]
            self._start = until

    def _commit(self, identity: str | None, end: int) -> None:
        """What is in the buffer up to that sample of the session becomes what the user said."""
        whole_wave = np.concatenate(self._buffer) if self._buffer else np.zeros(0, np.float32)
        wave = whole_wave[: end - self._start]
        if len(wave) < LEAST_MS * RATE // 1000:
            raise EventError(
                f"input_audio_buffer: expected at least {LEAST_MS} ms of sound, got {len(wave) * 1000 // RATE} ms",
                code="input_audio_buffer_commit_empty",
            )
        self._buffer, self._start, self._turn = [whole_wave[end - self._start :]], end, None
        item = Item("user", [Part("input_audio", pieces=[wave])])
        item.id = identity or item.id
        previous = self.items[-1].id if self.items else None
        self._send("input_audio_buffer.committed", item_id=item.id, previous_item_id=previous)
        self._add(item, len(self.items))
        if self.settings.transcribe:
            self._desk.transcribe(item, self.settings)

    # Client events

    def _on_update(self, event: Event) -> None:
        settings = self.settings.updated(event.get("session"))
        if settings.kind != self.settings.kind and self.items:
            raise unsupported("session.type", "expected it to stay as it is once something has been said")
        if settings.voice != self.settings.voice:
            self._check_voice(settings.voice)
        if settings.input_format != self.settings.input_format:
            self._decoder = Decoder(settings.input_format)
        if (settings.detection is None) != (self.settings.detection is None):
            self._turns, self._origin, self._turn = Turns(), self._end, None
        self.settings = settings
        self._send("session.updated", session=self._shown())

    def _on_append(self, event: Event) -> None:
        self.hear(self.read_append(event), [])

    def _on_commit(self, event: Event) -> None:
        self._commit(self._turn[0] if self._turn else None, self._end)
        self._turns.reset()

    def _on_clear(self, event: Event) -> None:
        self._buffer, self._start, self._turn = [], self._end, None
        self._turns.reset()
        self._send("input_audio_buffer.cleared")

    def _on_create_item(self, event: Event) -> None:
        item = read_item(event.get("item"), self.settings.input_format, self._most_seconds)
        previous = event.get("previous_item_id")
        index = len(self.items) if previous is None else 0
        if previous not in (None, "root"):
            index = self.items.index(self._item(previous, "previous_item_id")) + 1
        if any(item.id == other.id for other in self.items):
            raise EventError(f"item.id: expected one that is not taken, got {shown(item.id)}", "item.id")
        self._add(item, index)

    def _on_retrieve(self, event: Event) -> None:
        item = self._item(event.get("item_id"))
        self._send("conversation.item.retrieved", item=item.shown(sound=True))

    def _on_truncate(self, event: Event) -> None:
        item = self._item(event.get("item_id"))
        index = whole(event.get("content_index"), "content_index", 0, len(item.parts) - 1)
        part = item.parts[index]
        if part.kind != "output_audio":
            raise EventError("item_id: expected spoken words of the assistant", "item_id")
        end = whole(event.get("audio_end_ms"), "audio_end_ms", 0, 1 << 40)
        if end > -(-part.samples * 1000 // RATE):
            raise EventError(
                f"audio_end_ms: expected at most {part.samples * 1000 // RATE}, of which there are no more, got {end}",
                "audio_end_ms",
            )
        if self.answer is not None and self.answer.item is item:
            self._cancel("client_cancelled")
        self._truncate(item, index, end)

    def _on_delete(self, event: Event) -> None:
        item = self._item(event.get("item_id"))
        if self.answer is not None and self.answer.item is item:
            self._cancel("client_cancelled")
        self.items.remove(item)
        self._send("conversation.item.deleted", item_id=item.id)

    def _on_respond(self, event: Event) -> None:
        if self.settings.kind == "transcription":
            raise unsupported("type", "a transcription session gives no answers")
        if self.answer is not None:
            raise EventError(
                f"an answer is being made: wait for response.done of {self.answer.id}, or cancel it",
                code="conversation_already_has_active_response",
            )
        known = ("audio", "instructions", "max_output_tokens", "output_modalities", "conversation", "input", "metadata")
        missing = ("tools", "tool_choice", "parallel_tool_calls", "prompt", "reasoning")
        given = object_of(event.get("response") or {}, "response", (*known, *missing))
        settings = self.settings.of_response(given)
        if settings.voice != self.settings.voice:
            self._check_voice(settings.voice)
        conversation = given.get("conversation") or "auto"
        if conversation not in ("auto", "none", self._conversation):
            raise wrong("response.conversation", "auto or none", conversation)
        items = list(self.items)
        if given.get("input") is not None:
            items = self._read_input(given["input"])
        if not _answerable(items) and given.get("instructions"):  # they are what is to be done
            items.append(Item("user", [Part("input_text", settings.instructions)]))
            settings = replace(settings, instructions=self.settings.instructions)
        self._respond(items, settings, conversation != "none", _metadata(given.get("metadata")))

    def _on_cancel(self, event: Event) -> None:
        wanted = event.get("response_id")
        if self.answer is None or wanted not in (None, self.answer.id):
            raise EventError(
                f"response_id: expected that of an answer in the making, got {shown(wanted)}",
                "response_id",
                "response_cancel_not_active",
            )
        self._wanted = False
        self._cancel("client_cancelled")

    def _on_clear_output(self, event: Event) -> None:
        played = self._played
        if played is None or not self._playing:
            raise EventError("no answer is being played", code="output_audio_buffer_empty")
        if self.answer is played:
            self._cancel("client_cancelled")
        self._playing = False
        assert played.sent is not None
        heard = min(played.part.samples, int((self._clock() - played.sent) * RATE))
        self._send("output_audio_buffer.cleared", response_id=played.id)
        if played.item in self.items and heard < played.part.samples:
            self._truncate(played.item, 0, heard * 1000 // RATE)

    # Answers

    def text(self, answer: Answer, delta: str) -> None:
        """The answer goes on with these words."""
        if answer is not self.answer or not delta:
            return
        answer.part.text += delta
        kind = "response.output_text" if answer.settings.modality == "text" else "response.output_audio_transcript"
        self._send(f"{kind}.delta", **self._place(answer), content_index=0, delta=delta)

    def sound(self, answer: Answer, wave: Wave) -> None:
        """The answer goes on with this sound."""
        if answer is not self.answer or not len(wave):
            return
        answer.encoder = answer.encoder or Encoder(answer.settings.output_format)
        self._send_sound(answer, answer.encoder.push(wave), len(wave))
        answer.part.pieces.append(wave)
        answer.samples += len(wave)
        if answer.sent is None:
            answer.sent, self._played, self._playing = self._clock(), answer, True
            self._send("output_audio_buffer.started", response_id=answer.id)

    def complete(self, answer: Answer, text: str, codes: Tensor | None, reason: str, spent: Spent) -> None:
        """The answer is there, or what there is of it, whole: its words, its codes int64 [C, T] and why it ended."""
        if answer is self.answer:
            if answer.encoder is not None and (rest := answer.encoder.push(np.zeros(0, np.float32), last=True)):
                self._send_sound(answer, rest, 0)
            details: Event | None = None
            if reason == "length":
                details = {"type": "incomplete", "reason": "max_output_tokens"}
            elif reason != "stop":
                message = "the answer was ended because it " + ENDED.get(reason, f"could not go on ({reason})")
                details = {"type": "incomplete", "error": {"type": "server_error", "code": reason, "message": message}}
            self._finish(answer, "incomplete" if details else "completed", details, spent)
            answer.part.text, answer.part.codes = text, codes
        elif codes is not None:
            answer.part.settle(text, codes, self._group_size)

    def fail(self, answer: Answer, message: str, code: str = "server_error") -> None:
        """The answer cannot be made; what there is of it stays."""
        if answer is self.answer:
            error = {"type": "server_error", "code": code, "message": message}
            self._finish(answer, "failed", {"type": "failed", "error": error}, None)

    def transcribed(self, item: Item, delta: str | None, text: str | None = None, error: str | None = None) -> None:
        """The words of what a user said: a piece of them (text None), in the end all of them, or why there are none."""
        place = {"item_id": item.id, "content_index": 0}
        kind = "conversation.item.input_audio_transcription"
        if delta:
            self._send(f"{kind}.delta", **place, delta=delta)
        if error is not None:
            described = {"type": "server_error", "code": "transcription_failed", "message": error}
            self._send(f"{kind}.failed", **place, error=described)
        elif text is not None:
            item.parts[0].text = text
            usage = {"type": "duration", "seconds": round(item.parts[0].samples / RATE, 3)}
            self._send(f"{kind}.completed", **place, transcript=text, usage=usage)

    def deadline(self) -> float | None:
        """When `tick` is to be called, by the clock; None: no need."""
        times = []
        if self._playing and self._played is not None and self._played is not self.answer:
            times.append(self._heard_at(self._played))
        idle = self.settings.detection and self.settings.detection.idle_timeout_ms
        if idle and self._idle_since is not None and self._turn is None:
            times.append(self._idle_since + idle / 1000)
        return min(times, default=None)

    def tick(self) -> None:
        """What time alone brings: an answer has been played, the user has been silent for long."""
        now = self._clock()
        played = self._played
        if self._playing and played is not None and played is not self.answer and now >= self._heard_at(played):
            self._playing = False
            self._send("output_audio_buffer.stopped", response_id=played.id)
        detection = self.settings.detection
        idle = detection and detection.idle_timeout_ms
        if not idle or self._idle_since is None or self._turn is not None or now < self._idle_since + idle / 1000:
            return
        self._idle_since = None
        if self._end - self._start < LEAST_MS * RATE // 1000 or self.answer is not None:
            return
        identity = "item_" + secrets.token_hex(10)
        start, end = (samples * 1000 // RATE for samples in (self._start, self._end))
        self._send("input_audio_buffer.timeout_triggered", audio_start_ms=start, audio_end_ms=end, item_id=identity)
        self._commit(identity, self._end)
        self._want()

    def _want(self) -> None:
        """An answer to what was said, now or after the one in the making."""
        if self.answer is not None:
            self._wanted = True
        else:
            self._respond(list(self.items), self.settings, True, None)

    def _respond(self, items: list[Item], settings: Settings, stored: bool, metadata: dict[str, str] | None) -> None:
        if not _answerable(items):
            raise EventError(
                "there is nothing to answer: expected something that the user has said since the last answer, or "
                "instructions in response.create",
                code="nothing_to_answer",
            )
        part = Part("output_audio" if settings.modality == "audio" else "output_text")
        item = Item("assistant", [part], status="in_progress")
        self.answer = answer = Answer(settings, items, item, stored, metadata)
        self._idle_since = None
        self._send("response.created", response=self._shown_answer(answer))
        self._send(
            "response.output_item.added", response_id=answer.id, output_index=0, item=item.shown() | {"content": []}
        )
        if stored:
            self._insert(item, len(self.items))
            previous = self.items[-2].id if len(self.items) > 1 else None
            empty = item.shown() | {"content": []}
            self._send("conversation.item.added", item=empty, previous_item_id=previous)
        empty_part = (
            {"type": "audio", "transcript": ""} if settings.modality == "audio" else {"type": "text", "text": ""}
        )
        self._send("response.content_part.added", **self._place(answer), content_index=0, part=empty_part)
        self._desk.generate(answer)

    def _cancel(self, reason: str) -> None:
        answer = self.answer
        assert answer is not None
        unsent = self._desk.unsend(answer.id)
        if unsent:
            answer.samples -= unsent
            answer.part.pieces[:] = [answer.part.wave[: answer.samples]]
        self._finish(answer, "cancelled", {"type": "cancelled", "reason": reason}, None)
        self._desk.cancel(answer)

    def _finish(self, answer: Answer, status: str, details: Event | None, spent: Spent | None) -> None:
        """The last events of an answer."""
        answer.status, self.answer = status, None
        answer.item.status = "completed" if status == "completed" else "incomplete"
        place, text = self._place(answer), answer.part.text
        if answer.settings.modality == "audio":
            self._send("response.output_audio.done", **place, content_index=0)
            self._send("response.output_audio_transcript.done", **place, content_index=0, transcript=text)
            part = {"type": "audio", "transcript": text}
        else:
            self._send("response.output_text.done", **place, content_index=0, text=text)
            part = {"type": "text", "text": text}
        self._send("response.content_part.done", **place, content_index=0, part=part)
        shown_item = answer.item.shown()
        self._send("response.output_item.done", response_id=answer.id, output_index=0, item=shown_item)
        if answer.stored and answer.item in self.items:
            index = self.items.index(answer.item)
            previous = self.items[index - 1].id if index else None
            self._send("conversation.item.done", item=shown_item, previous_item_id=previous)
        self._send("response.done", response=self._shown_answer(answer, details, spent))
        self._idle_since = max(self._clock(), self._heard_at(answer))
        wanted, self._wanted = self._wanted, False
        if wanted and status != "cancelled":
            self._respond(list(self.items), self.settings, True, None)

    # Helpers

    def _truncate(self, item: Item, index: int, end_ms: int) -> None:
        item.parts[index].cut(min(end_ms * RATE // 1000, item.parts[index].samples), self._group_size)
        self._send("conversation.item.truncated", item_id=item.id, content_index=index, audio_end_ms=end_ms)

    def _heard_at(self, answer: Answer) -> float:
        """When its sound has been played, if it is played as it comes."""
        return self._clock() if answer.sent is None else answer.sent + answer.samples / RATE

    def _add(self, item: Item, index: int) -> None:
        if len(self.items) >= MOST_ITEMS:
            raise EventError(
                f"expected at most {MOST_ITEMS} items in a conversation: delete some", code="too_many_items"
            )
        self._insert(item, index)
        previous = self.items[index - 1].id if index else None
        for kind in ("conversation.item.added", "conversation.item.done"):
            self._send(kind, item=item.shown(), previous_item_id=previous)

    def _insert(self, item: Item, index: int) -> None:
        """Sound that is older than a model's context is forgotten, so that a session does not grow for ever."""
        self.items.insert(index, item)
        seconds = 0.0
        for other in reversed(self.items):
            for part in other.parts:
                seconds += part.samples / RATE
                if seconds > self._most_seconds and other is not item:
                    part.pieces, part.codes = [], None

    def _item(self, identity: object, name: str = "item_id") -> Item:
        found = next((item for item in self.items if item.id == identity), None)
        if found is None:
            raise EventError(
                f"{name}: expected an item of the conversation, got {shown(identity)}", name, "item_not_found"
            )
        return found

    def _read_input(self, given: object) -> list[Item]:
        """The items of response.create: new ones, and references to those of the conversation."""
        if not isinstance(given, list) or len(given) > MOST_ITEMS:
            raise wrong("response.input", f"a list of at most {MOST_ITEMS} items", given)
        items = []
        for index, entry in enumerate(given):
            name = f"response.input[{index}]"
            if isinstance(entry, dict) and entry.get("type") == "item_reference":
                items.append(self._item(object_of(entry, name, ("type", "id")).get("id"), f"{name}.id"))
            else:
                items.append(read_item(entry, self.settings.input_format, self._most_seconds, name))
        return items

    def _place(self, answer: Answer) -> Event:
        return {"response_id": answer.id, "item_id": answer.item.id, "output_index": 0}

    def _send(self, kind: str, **fields: Any) -> None:
        self._desk.send(self._event(kind, fields))

    def _send_sound(self, answer: Answer, data: bytes, samples: int) -> None:
        fields = self._place(answer) | {"content_index": 0, "delta": base64.b64encode(data).decode()}
        self._desk.send(self._event("response.output_audio.delta", fields), samples)

    def _event(self, kind: str, fields: Event) -> Event:
        self._number += 1  # ids in the order of the events
        return {"type": kind, "event_id": f"event_{self.id[5:13]}_{self._number:08d}", **fields}

    def _shown(self) -> Event:
        kind = self.settings.kind
        objects = {"realtime": "realtime.session", "transcription": "realtime.transcription_session"}
        shown_session = {"id": self.id, "object": objects[kind], "type": kind, "expires_at": self._expires_at}
        return shown_session | ({"model": self.model} if kind == "realtime" else {}) | self.settings.shown()

    def _shown_answer(self, answer: Answer, details: Event | None = None, spent: Spent | None = None) -> Event:
        done = answer.status != "in_progress"
        return {
            "id": answer.id,
            "object": "realtime.response",
            "status": answer.status,
            "status_details": details,
            "output": [answer.item.shown()] if done else [],
            "conversation_id": self._conversation if answer.stored else None,
            "output_modalities": [answer.settings.modality],
            "max_output_tokens": answer.settings.shown_most(),
            "audio": {"output": answer.settings.shown_output()},
            "usage": spent.shown() if spent is not None else None,
            "metadata": answer.metadata,
        }


ENDED = {"repetition": "repeated itself", "deadline": "took too long", "cancelled": "was cancelled"}
EVENTS: dict[str, tuple[tuple[str, ...], Callable[[Session, Event], None]]] = {
    "session.update": (("session",), Session._on_update),
    "input_audio_buffer.append": (("audio",), Session._on_append),
    "input_audio_buffer.commit": ((), Session._on_commit),
    "input_audio_buffer.clear": ((), Session._on_clear),
    "conversation.item.create": (("item", "previous_item_id"), Session._on_create_item),
    "conversation.item.retrieve": (("item_id",), Session._on_retrieve),
    "conversation.item.truncate": (("item_id", "content_index", "audio_end_ms"), Session._on_truncate),
    "conversation.item.delete": (("item_id",), Session._on_delete),
    "response.create": (("response",), Session._on_respond),
    "response.cancel": (("response_id",), Session._on_cancel),
    "output_audio_buffer.clear": ((), Session._on_clear_output),
}


def _answerable(items: list[Item]) -> bool:
    """Whether the user has said something since the last answer of which something was heard."""
    for item in reversed(items):
        if item.role == "user":
            return True
        if item.role == "assistant" and any(part.text.strip() for part in item.parts):
            return False
    return False


def _metadata(given: object) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or len(given) > 16:
        raise wrong("response.metadata", "an object of at most 16 strings", given)
    for key, value in given.items():
        text_of(key, "response.metadata", 64)
        text_of(value, f"response.metadata.{key}", 512)
    return given
