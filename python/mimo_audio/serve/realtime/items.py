"""What was said: the items of a conversation, cut to what was heard, and the turns that the model is given of them."""

import base64
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mimo_audio.prompts import Turn
from mimo_audio.prompts.segments import pad_codes
from mimo_audio.serve.realtime.errors import EventError, object_of, text_of, unsupported, wrong
from mimo_audio.serve.realtime.sound import RATE, Format, Wave, decode, to_pcm16

FRAME_RATE = 25  # code frames per second
LONGEST_TEXT = 100_000  # characters of a part
MOST_PARTS = 16
# Characters that are spoken per second at most; a Chinese, Japanese or Korean one counts as three. Text is written
# ahead of its sound, so that where an answer was broken off the sound made does not say which words were heard.
FASTEST, HEAVY = 18.0, 3.0
Kind = Literal["input_text", "input_audio", "output_text", "output_audio"]


@dataclass(eq=False)
class Part:
    """Text, or sound with its words if they are known.

    pieces: the wave, float32 at 24 kHz: of an answer, what was sent. codes int64 [C, T] of it, once they are needed.
    said, made: the whole text of an answer and the code frames that it belongs to, however much of them is cut.
    """

    kind: Kind
    text: str = ""
    pieces: list[Wave] = field(default_factory=list, repr=False)
    codes: Tensor | None = field(default=None, repr=False)
    said: str = ""
    made: int = 0

    @property
    def samples(self) -> int:
        """The length of the wave."""
        return sum(map(len, self.pieces))

    @property
    def wave(self) -> Wave:
        """The whole wave."""
        if len(self.pieces) > 1:
            self.pieces[:] = [np.concatenate(self.pieces)]
        return self.pieces[0] if self.pieces else np.zeros(0, np.float32)

    def cut(self, samples: int, group_size: int) -> None:
        """Nothing after so many samples was heard: wave, codes (whole patches) and words end there."""
        self.said = self.said or self.text
        self.made = self.made or (-(-self.samples * FRAME_RATE // RATE) if self.codes is None else self.codes.shape[1])
        self.pieces[:] = [self.wave[:samples]]
        frames = samples * FRAME_RATE // RATE // group_size * group_size
        if self.codes is not None:
            self.codes = self.codes[:, :frames]
        self.text = heard_text(self.said, frames / self.made if self.made else 0.0, samples / RATE)

    def settle(self, text: str, codes: Tensor, group_size: int) -> None:
        """The codes and words of an answer that was broken off: what was sent, and not cut since, stays."""
        self.said, self.codes, self.made = text, codes, codes.shape[1]
        self.cut(self.samples, group_size)

    def shown(self, sound: bool = True) -> dict[str, Any]:
        """The part as events have it."""
        if self.kind in ("input_text", "output_text"):
            return {"type": self.kind, "text": self.text}
        shown: dict[str, Any] = {"type": self.kind, "transcript": self.text or None}
        if sound:
            shown["audio"] = base64.b64encode(to_pcm16(self.wave).tobytes()).decode()
        return shown


@dataclass(eq=False)
class Item:
    """A message of the user, the assistant or the system."""

    role: Literal["user", "assistant", "system"]
    parts: list[Part]
    id: str = field(default_factory=lambda: "item_" + secrets.token_hex(10))
    status: Literal["completed", "incomplete", "in_progress"] = "completed"

    def shown(self, sound: bool = False) -> dict[str, Any]:
        """The item as events have it; with its `sound` only where it is asked for."""
        content = [part.shown(sound) for part in self.parts]
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "status": self.status,
            "role": self.role,
            "content": content,
        }


def heard_text(text: str, share: float, seconds: float) -> str:
    """The words of the first `share` of a speech, and no more than so many seconds of speech can have been.

    At least the first, if anything was heard.
    """
    if share >= 1:
        return text
    if share <= 0:
        return ""
    length, left = int(len(text) * share), seconds * FASTEST
    for index, character in enumerate(text[:length]):
        left -= HEAVY if ord(character) >= 0x2E80 else 1.0
        if left < 0:
            length = index
            break
    while 0 < length < len(text) and _joined(text[length - 1], text[length]):  # not half a word
        length -= 1
    return text[:length].rstrip() or _first_word(text)


def _first_word(text: str) -> str:
    start = len(text) - len(text.lstrip())
    end = start + 1
    while end < len(text) and _joined(text[end - 1], text[end]):
        end += 1
    return text[start:end]


def _joined(left: str, right: str) -> bool:
    return not (left.isspace() or right.isspace() or ord(left) >= 0x2E80 or ord(right) >= 0x2E80)


def read_item(given: object, kind: Format, most_seconds: float, name: str = "item") -> Item:
    """An item that a client sends, its sound of the given format. Raises EventError."""
    if isinstance(given, dict) and given.get("type", "message") != "message":
        raise unsupported(f"{name}.type", f"expected message: this model calls no tools, got {given.get('type')!r:.50}")
    fields = object_of(given, name, ("id", "object", "type", "status", "role", "content", "phase"))
    role = fields.get("role")
    if role not in ("user", "assistant", "system"):
        raise wrong(f"{name}.role", "user, assistant or system", role)
    content = fields.get("content")
    if not isinstance(content, list) or not 1 <= len(content) <= MOST_PARTS:
        raise wrong(f"{name}.content", f"a list of 1 to {MOST_PARTS} parts", content)
    parts = [_part(part, role, kind, most_seconds, f"{name}.content[{i}]") for i, part in enumerate(content)]
    item = Item(role, parts)
    if fields.get("id") is not None:
        item.id = text_of(fields["id"], f"{name}.id", 64, 1)
    return item


def _part(given: object, role: str, kind: Format, most_seconds: float, name: str) -> Part:
    fields = object_of(given, name, ("type", "text", "audio", "transcript", "image_url", "detail"))
    allowed = {
        "user": ("input_text", "input_audio"),
        "system": ("input_text",),
        "assistant": ("output_text", "output_audio"),
    }[role]
    found = fields.get("type")
    if found == "input_image":
        raise unsupported(f"{name}.type", "this model sees no images")
    if found not in allowed:
        raise wrong(f"{name}.type", " or ".join(allowed), found)
    if found in ("input_text", "output_text"):
        return Part(found, text_of(fields.get("text"), f"{name}.text", LONGEST_TEXT, 1))
    transcript = text_of(fields.get("transcript") or "", f"{name}.transcript", LONGEST_TEXT)
    if fields.get("audio") is None:
        if found == "output_audio" and transcript:
            return Part("output_text", transcript)
        raise wrong(f"{name}.audio", "base64 sound", None)
    wave = read_sound(fields["audio"], kind, f"{name}.audio")
    if len(wave) > most_seconds * RATE:
        raise wrong(f"{name}.audio", f"at most {most_seconds:.0f} s", f"{len(wave) / RATE:.0f} s")
    return Part(found, transcript, [wave])


def read_sound(given: object, kind: Format, name: str) -> Wave:
    """Base64 sound -> a wave. Raises EventError."""
    wave = decode(kind, read_bytes(given, name))
    if not len(wave):
        raise wrong(name, "some sound", given)
    return wave


def read_bytes(given: object, name: str) -> bytes:
    """Base64 -> bytes. Raises EventError."""
    if not isinstance(given, str):
        raise wrong(name, "base64 sound", given)
    try:
        return base64.b64decode(given, validate=True)
    except ValueError:
        raise EventError(f"{name}: expected valid base64", name) from None


@dataclass(frozen=True, eq=False)
class History:
    """What a prompt is made of: turns that alternate, the user's last, and what the system said before them."""

    turns: list[Turn]
    system: str | None


def history(items: Iterable[Item], instructions: str, speech: bool, group_size: int) -> History:
    """The items as turns, for a spoken answer or a written one.

    What the same side said in several items is one turn. What nobody heard has not been said. A written answer is given
    to the words of earlier ones; sound that has no codes yet must have been encoded. Raises EventError if the user has
    not said anything since the last answer.
    """
    system, turns = [instructions] if instructions else [], list[Turn]()
    for item in items:
        if item.role == "system":
            system += [part.text for part in item.parts]
            continue
        turn = _turn(item, speech)
        if turn is None:
            continue
        if turns and turns[-1].role == turn.role:
            turn = _joined_turns(turns.pop(), turn, group_size)
        turns.append(turn)
    said = "\n".join(system)
    if not turns or turns[-1].role == "assistant":
        raise EventError(
            "there is nothing to answer: expected something that the user has said since the last answer, or "
            "instructions in response.create",
            code="nothing_to_answer",
        )
    if speech or not said:
        return History(turns, said or None)
    # Written answers know no system prompt: the first turn carries it, before its text or after its sound.
    first = next(index for index, turn in enumerate(turns) if turn.role == "user")
    opened = turns[first]
    text = said if opened.text is None else f"{said}\n\n{opened.text}"
    turns[first] = Turn("user", text, opened.audio)
    return History(turns, None)


def fitted(said: History, positions: Callable[[Turn], int], room: int, retention: float | None) -> History:
    """What of it fits into so many positions: the oldest turns are left out, two and two, down to retention * room.

    Raises EventError if that is not allowed (None), or the last turn alone is too long.
    """
    sizes = [positions(turn) for turn in said.turns]
    if sum(sizes) <= room:
        return said
    most = room if retention is None else int(room * retention)
    start = 0
    while retention is not None and sum(sizes[start:]) > most and start < len(sizes) - 1:
        start += 2 if said.turns[start].role == "user" else 1
    if start >= len(sizes) or sum(sizes[start:]) > room:
        raise EventError(
            f"the conversation takes {sum(sizes)} tokens, expected at most {room}: shorten it, or let its beginning be "
            "left out (truncation)",
            code="conversation_too_long",
        )
    return History(said.turns[start:], said.system)


def _turn(item: Item, speech: bool) -> Turn | None:
    text = "\n".join(
        part.text for part in item.parts if part.text and (item.role == "assistant" or part.kind == "input_text")
    )
    codes = [part.codes for part in item.parts if part.codes is not None and part.codes.shape[1]]
    audio = torch.cat(codes, 1) if codes and (speech or item.role == "user") else None
    if item.role == "assistant" and not text.strip():
        return None  # nothing was heard, or nothing that could be understood
    return Turn(item.role, text or None, audio) if text or audio is not None else None


def _joined_turns(first: Turn, second: Turn, group_size: int) -> Turn:
    texts = [turn.text for turn in (first, second) if turn.text]
    sounds = [pad_codes(turn.audio, group_size) for turn in (first, second) if turn.audio is not None]
    return Turn(first.role, "\n".join(texts) or None, torch.cat(sounds, 1) if sounds else None)
