"""A task's answer while it is made: text, sound, and in the end the result. For `for` and `async for`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, repeat
from threading import Lock
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from mimo_audio.engine import Handle, Usage
from mimo_audio.errors import GenerationError
from mimo_audio.prompts import Prompt, PromptBuilder
from mimo_audio.tasks.results import Response
from mimo_audio.tasks.voices import Voice

if TYPE_CHECKING:
    from typing_extensions import Self

Outcome = TypeVar("Outcome")

# Patches (160 ms) per chunk of sound, the last one for all that follow: the first sample as early as it can be, at the
# risk that a player waits for the second; a start that a player rarely outruns; the least work.
CHUNKS = {"ttfa": (1, 2, 4, 8, 12), "balanced": (4, 4, 8, 16, 25), "throughput": (25,)}
Schedule: TypeAlias = Literal["ttfa", "balanced", "throughput"]
AHEAD = 50  # patches (8 s) that are made ahead of a consumer, beside the chunk in hand
CLOSING = "</think>"


@dataclass(frozen=True)
class TextDelta:
    """Text that follows what came before; `thought`: of what the model thinks before it answers."""

    text: str
    thought: bool = False


@dataclass(frozen=True, eq=False)
class AudioDelta:
    """A wave [N] float32 on the CPU that follows, without a seam, what came before."""

    wave: Tensor = field(repr=False)
    sample_rate: int


@dataclass(frozen=True, eq=False)
class Completed(Generic[Outcome]):
    """The end: what the task would have returned (its wave is what was streamed), and what that took."""

    result: Outcome
    usage: Usage


Event: TypeAlias = TextDelta | AudioDelta | Completed[Outcome]


@dataclass(frozen=True, eq=False)
class Asked(Generic[Outcome]):
    """A task with its arguments: the prompt, the codes whose sound the answer joins on, and how the answer is read.

    read: from the response and the wave that was streamed, None if none was. speaks: there is sound to stream.
    """

    prompt: Prompt
    read: Callable[[Response, "Sound | None"], Outcome]
    speaks: bool = False
    before: Tensor | None = None
    most_patches: int | None = None


@dataclass(frozen=True, eq=False)
class Sound:
    """Codes int64 [C, T] and their wave [N]."""

    codes: Tensor
    wave: Tensor


class Thought:
    """Splits text as it comes into a thought, up to </think>, and what follows."""

    def __init__(self, thinking: bool) -> None:
        self._thinking, self._held = thinking, ""

    def push(self, text: str) -> list[TextDelta]:
        """The text goes on; -> what is known to be of one kind."""
        if not self._thinking:
            return [TextDelta(text)] if text else []
        thought, closed, rest = (self._held + text).partition(CLOSING)
        if closed:
            self._thinking, self._held = False, ""
            return [delta for delta in (TextDelta(thought, True), TextDelta(rest)) if delta.text]
        cut = next((n for n in range(len(CLOSING) - 1, 0, -1) if thought.endswith(CLOSING[:n])), 0)
        self._held = thought[len(thought) - cut :]
        return [TextDelta(thought[: len(thought) - cut], True)] if len(thought) > cut else []

    def finish(self) -> list[TextDelta]:
        """What was held back."""
        held, self._held = self._held, ""
        return [TextDelta(held, self._thinking)] if held else []


class Stream(Generic[Outcome]):
    """The events of one task. Leaving its `with` block, or `cancel`, ends the request.

    It runs ahead of its consumer by a few seconds of sound at most, then waits.
    """

    def __init__(
        self,
        asked: Asked[Outcome],
        handle: Handle,
        response: Callable[[Handle], Response],
        prompts: PromptBuilder,
        open_voice: Callable[[], Voice] | None,
        sample_rate: int,
        frame_samples: int,
        chunks: Schedule,
    ) -> None:
        self._asked, self._handle, self._response = asked, handle, response
        self._rate, self._frame_samples = sample_rate, frame_samples
        self._special = prompts.layout.special
        self._text = prompts.tokenizer.stream(skip_special=True)
        self._thought = Thought(asked.prompt.thinking)
        self._speaking = not asked.prompt.thinking  # else from <|sostm|> on
        self._over = False
        self._open_voice = open_voice if asked.speaks else None
        self._voice: Voice | None = None
        sizes = CHUNKS[chunks]
        self._sizes = chain(sizes, repeat(sizes[-1]))
        self._size = next(self._sizes)
        self._pending: list[Tensor] = []  # patches of the next chunk
        self._codes: list[Tensor] = []
        self._waves: list[Tensor] = []
        self._skip = 0  # samples of the sound before
        self._events: Iterator[Event[Outcome]] | None = None  # a generator that never began would keep this alive
        self._begun = False
        self._closed, self._decoding = False, Lock()

    def cancel(self) -> None:
        """Ends the request; iteration ends with what there is."""
        self._handle.cancel()

    def result(self) -> Outcome:
        """What the task would have returned: waits for it, without events. Raises GenerationError."""
        if self._begun:
            for event in self:
                if isinstance(event, Completed):
                    return event.result
            raise GenerationError("the stream has ended: its last event had the result")
        self._begun = True
        return self._asked.read(self._response(self._handle), None)

    def __iter__(self) -> Iterator["Event[Outcome]"]:
        self._begun = True
        if self._events is None:
            self._events = self._run()
        return self._events

    def _run(self) -> Iterator["Event[Outcome]"]:
        try:
            for group in self._handle:
                yield from self._push(group)
            yield from self._finish()
        finally:
            self.close()

    async def __aiter__(self) -> AsyncIterator["Event[Outcome]"]:
        self._begun = True
        try:
            async for group in self._handle:
                # Decoding takes milliseconds: in a thread, so that streams are decoded together and the loop goes on.
                fills = self._is_sound(group) and len(self._pending) + 1 >= self._size
                for event in await asyncio.to_thread(self._push, group) if fills else self._push(group):
                    yield event
            for event in await asyncio.to_thread(self._finish):
                yield event
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of everything."""
        self._closed = True
        if not self._handle.done:
            self._handle.cancel()
        self._free()

    def _free(self) -> None:
        """Gives the row of sound back; where a thread still decodes in it, that one does when it is done."""
        if self._decoding.acquire(blocking=False):
            try:
                if self._voice is not None:
                    with suppress(Exception):
                        self._voice.close()
                    self._voice = None
            finally:
                self._decoding.release()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _is_sound(self, group: Tensor) -> bool:
        return int(group[0, 0]) == self._special.empty

    def _push(self, group: Tensor) -> list["Event[Outcome]"]:
        token = int(group[0, 0])
        if token != self._special.empty:
            if token == self._special.sostm:
                self._speaking = True
            elif token == self._special.eostm:
                self._over = True
            return list(self._thought.push(self._text.push([token])))
        if not self._speaking or self._over or self._open_voice is None:
            return []
        self._pending.append(group[1:])
        return self._decode() if len(self._pending) >= self._size else []

    def _decode(self, last: bool = False) -> list["Event[Outcome]"]:
        """The sound of the pending patches, and of all that is held back after the last of them."""
        try:
            with self._decoding:
                return [] if self._closed else self._decoded(last)
        finally:
            if self._closed:  # while this thread decoded: whoever listened has gone
                self._free()

    def _decoded(self, last: bool) -> list["Event[Outcome]"]:
        if self._voice is None:
            assert self._open_voice is not None
            self._voice = self._open_voice()
            if self._asked.before is not None:
                self._skip = self._asked.before.shape[1] * self._frame_samples
                self._pending.insert(0, self._asked.before)
        waves = []
        if self._pending:
            codes = torch.cat(self._pending, 1)
            waves.append(self._voice.push(codes))
            self._codes.append(codes)
            self._pending, self._size = [], next(self._sizes)
        if last:
            waves.append(self._voice.finish())
        wave = torch.cat(waves)
        skipped = min(self._skip, len(wave))
        self._skip -= skipped
        wave = wave[skipped:]
        if len(wave) == 0:
            return []
        self._waves.append(wave)
        return [AudioDelta(wave, self._rate)]

    def _finish(self) -> list["Event[Outcome]"]:
        events: list[Event[Outcome]] = [*self._thought.push(self._text.finish()), *self._thought.finish()]
        if self._pending or self._voice is not None:
            events += self._decode(last=True)
        sound = None
        if self._codes:
            before = 0 if self._asked.before is None else self._asked.before.shape[1]
            sound = Sound(torch.cat(self._codes, 1)[:, before:], torch.cat(self._waves))
        usage = self._handle.result().usage
        events.append(Completed(self._asked.read(self._response(self._handle), sound), usage))
        return events
