"""A desk for sessions without a server: it writes down what it is asked for, and answers when it is told to."""

import base64
from typing import Any

import numpy as np
import torch

from mimo_audio.serve.realtime.errors import EventError
from mimo_audio.serve.realtime.items import Item
from mimo_audio.serve.realtime.session import Answer, Session, Spent
from mimo_audio.serve.realtime.settings import Settings
from mimo_audio.serve.realtime.sound import RATE
from mimo_audio.serve.realtime.vad import STEP

GROUP, FRAME = 4, RATE // 25
PATCH_MS = 160
SILENT, VOICED = 0.02, 0.98
Event = dict[str, Any]


def sound(ms: int) -> np.ndarray[Any, Any]:
    return np.full(ms * RATE // 1000, 0.25, np.float32)


def encoded(ms: int) -> str:
    return base64.b64encode((sound(ms) * 32768).astype("<i2").tobytes()).decode()


class Fake:
    """A desk that writes down what it is asked for, and a model that answers when it is told to."""

    def __init__(self, **changes: Any) -> None:
        self.events: list[Event] = []
        self.made: list[Answer] = []
        self.cancelled: list[Answer] = []
        self.heard: list[Item] = []
        self.unsent: list[tuple[str, int]] = []  # what a slow client has not taken
        self.slow = False
        self.now = 100.0
        self.session = Session(self, "m", Settings(**changes), GROUP, 30.0, self._voice, lambda: self.now)
        self.session.open()

    def _voice(self, name: str) -> None:
        if name not in ("default", "alloy", "other"):
            raise EventError(f"voice: no voice {name!r}", "voice")

    def send(self, event: Event, samples: int = 0) -> None:
        self.events.append(event)
        if samples and self.slow:
            self.unsent.append((event["response_id"], samples))

    def unsend(self, response_id: str) -> int:
        taken = sum(samples for identity, samples in self.unsent if identity == response_id)
        self.unsent = []
        return taken

    def generate(self, answer: Answer) -> None:
        self.made.append(answer)

    def cancel(self, answer: Answer) -> None:
        self.cancelled.append(answer)

    def transcribe(self, item: Item, settings: Settings) -> None:
        self.heard.append(item)

    def give(self, kind: str, **fields: Any) -> list[Event]:
        """A client's event; -> what it is answered with."""
        before = len(self.events)
        self.session.receive({"type": kind, **fields})
        return self.events[before:]

    def kinds(self, events: list[Event] | None = None) -> list[str]:
        return [event["type"] for event in (self.events if events is None else events)]

    def say(self, text: str = "Hello?") -> list[Event]:
        content = [{"type": "input_text", "text": text}]
        return self.give("conversation.item.create", item={"type": "message", "role": "user", "content": content})

    def speak(self, answer: Answer, text: str, patches: int) -> None:
        """The model goes on: words, and patches of sound."""
        self.session.text(answer, text)
        self.session.sound(answer, sound(patches * PATCH_MS))

    def end(self, answer: Answer, text: str, patches: int, reason: str = "stop") -> None:
        self.session.complete(answer, text, codes(patches), reason, Spent(10, 4, 2, 3, patches))


def codes(patches: int) -> torch.Tensor:
    return torch.arange(patches * GROUP).repeat(8, 1)


def encode_all(items: list[Item]) -> None:
    """What the connection does before it asks the model."""
    for part in (part for item in items for part in item.parts):
        if part.codes is None and part.samples:
            part.codes = torch.zeros(8, -(-part.samples // FRAME), dtype=torch.int64)


def feed(fake: Fake, *stretches: tuple[float, int]) -> None:
    """Windows of silence or speech into the buffer, 32 ms each."""
    for probability, windows in stretches:
        for _ in range(windows):
            fake.session.hear(np.full(STEP, probability, np.float32), [probability])
