"""What a client says to `/v1/chat/completions`, and the task of the model that it is."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mimo_audio.prompts import Turn
from mimo_audio.serve.encoders import Format
from mimo_audio.serve.endpoints.common import Drawing, VoiceField
from mimo_audio.serve.errors import ServeError, bad
from mimo_audio.serve.service import Service
from mimo_audio.serve.uploads import check_size

TOOLS = ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "web_search_options")
REFUSED: dict[str, tuple[Any, ...]] = {  # fields that would change the answer, and the values that would not
    "n": (1,), "stop": ([], ""), "logprobs": (False,), "top_logprobs": (0,), "logit_bias": ({},),
    "presence_penalty": (0,), "frequency_penalty": (0,), "response_format": ({"type": "text"},), "prediction": (),
    "verbosity": ("medium",),
}  # fmt: skip
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")  # change no answer


class Part(BaseModel):
    """A piece of a message: words or a recording."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "input_audio"]
    text: str | None = None
    input_audio: dict[str, Any] | None = None


class Message(BaseModel):
    """What somebody said; fields that other servers put there are ignored."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None
    audio: dict[str, Any] | None = Field(None, description="{id} of an earlier spoken answer")


class AudioOut(BaseModel):
    """How a spoken answer sounds."""

    model_config = ConfigDict(extra="forbid")
    voice: VoiceField = None
    format: Format | Literal["pcm16"] = "wav"


class StreamOptions(BaseModel):
    """As OpenAI's."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatBody(Drawing):
    """The fields that have an effect; `extra` ones are refused by name if they ought to have one."""

    model_config = ConfigDict(extra="allow")
    messages: list[Message] = Field(min_length=1, max_length=1000)
    model: str | None = Field(None, description="any name: there is one model")
    modalities: list[Literal["text", "audio"]] = Field(["text"], min_length=1)
    audio: AudioOut | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, description="text tokens and patches (160 ms) in all")
    max_completion_tokens: int | None = Field(None, ge=1)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    thinking: bool | None = Field(None, description="think before a written answer: reasoning_content")

    def check(self) -> None:
        """Raises ServeError for what is not there: tools and such."""
        for name, value in (self.model_extra or {}).items():
            if value is None or name in IGNORED or value in REFUSED.get(name, ()):
                continue
            if name in TOOLS:
                raise ServeError(400, f"{name}: this model calls no tools", "unsupported_parameter", name)
            what = "is not supported by this model" if name in REFUSED else "no such field"
            raise ServeError(400, f"{name}: {what}", "unsupported_parameter", name)

    @property
    def speaks(self) -> bool:
        """Whether the answer is to be spoken."""
        return "audio" in self.modalities or self.messages[-1].role == "assistant"

    @property
    def thinks(self) -> bool:
        """Whether a written answer is to be thought about."""
        return self.thinking if self.thinking is not None else self.reasoning_effort not in (None, "none", "minimal")


@dataclass(frozen=True, eq=False)
class Asked:
    """A task of MimoAudio by name, with its arguments."""

    task: str
    arguments: tuple[Any, ...]
    named: dict[str, Any] = field(default_factory=dict)


async def read(body: ChatBody, service: Service, spoken: Mapping[str, Tensor]) -> Asked:
    """The task that the messages are; `spoken`: codes of earlier answers by id. Raises ServeError, AudioError."""
    body.check()
    options = body.options()
    most = body.max_completion_tokens or body.max_tokens
    if most is not None:
        options["max_new"] = most
    voice = service.voices.find(None if body.audio is None else body.audio.voice)
    system = "\n\n".join(_words(m, n) for n, m in enumerate(body.messages) if m.role in ("system", "developer")) or None
    turns = [(n, m) for n, m in enumerate(body.messages) if m.role in ("user", "assistant")]
    if not turns:
        raise bad("messages", "expected at least one of a user")
    if turns[-1][1].role == "assistant":
        return _text_to_speech(turns, system, voice, options)
    said = [await _turn(message, n, service, spoken, body.speaks) for n, message in turns]
    if body.speaks:
        return _spoken(said, system, voice, options)
    return _written(said, system, body.thinks, options)


def _text_to_speech(
    turns: list[tuple[int, Message]], system: str | None, voice: Tensor | None, options: dict[str, Any]
) -> Asked:
    """The hosted MiMo's form: the assistant's turn is what is said, the user's, if there is one, how."""
    if len(turns) > 2 or any(m.role != role for (_, m), role in zip(turns[::-1], ("assistant", "user"), strict=False)):
        raise bad("messages", "the last one is the assistant's, to be spoken: expected at most one of a user before it")
    style = "\n\n".join(filter(None, [system, *(_words(message, n) for n, message in turns[:-1])])) or None
    n, message = turns[-1]
    return Asked("speak", (_words(message, n),), {"voice": voice, "style": style, **options})


def _spoken(said: list["Said"], system: str | None, voice: Tensor | None, options: dict[str, Any]) -> Asked:
    turns = []
    for number, turn in enumerate(said):
        text = turn.text
        if turn.role == "user" and turn.audio is not None and text is not None:
            if number:
                raise bad(turn.name, "a spoken answer follows words or a recording, got both; words go to the first")
            system, text = "\n\n".join(filter(None, [system, text])), None
        turns.append(Turn(turn.role, text, turn.audio))
    return Asked("chat", (turns,), {"speech": True, "voice": voice, "system": system, **options})


def _written(said: list["Said"], system: str | None, thinks: bool, options: dict[str, Any]) -> Asked:
    """Words and a recording in one message are a question about it; the system's words go before the first."""
    first = said[0]
    words = "\n\n".join(filter(None, [system, first.text])) or None
    if first.audio is not None and words is not None:
        if len(said) > 1:
            raise bad(first.name, "words beside a recording (a system's too) are answered in one turn, got more")
        return Asked("understand", (first.audio, words), {"thinking": thinks, **options})
    for turn in said[1:]:
        if turn.role == "user" and turn.audio is not None and turn.text is not None:
            raise bad(turn.name, "expected words or a recording, got both")
    turns = [Turn(turn.role, words if turn is first else turn.text, turn.audio) for turn in said]
    return Asked("chat", (turns,), {"thinking": thinks, **options})


@dataclass(frozen=True, eq=False)
class Said:
    """A message as text, codes int [C, T], or both; `name` is where it stands."""

    name: str
    role: str
    text: str | None
    audio: Tensor | None


async def _turn(message: Message, number: int, service: Service, spoken: Mapping[str, Tensor], speech: bool) -> Said:
    name = f"messages[{number}]"
    texts, audio = [], None
    parts = [Part(type="text", text=message.content)] if isinstance(message.content, str) else message.content or []
    for part in parts:
        if part.type == "text":
            texts.append(part.text or "")
        elif message.role != "user" or audio is not None:
            raise bad(name, "expected one recording at most, of the user")
        else:
            audio = await _recording(part.input_audio, name, service)
    text = "\n".join(texts).strip() or None
    if message.role == "assistant" and speech:
        known = None if message.audio is None else spoken.get(str(message.audio.get("id")))
        if known is None:
            raise bad(f"{name}.audio", "expected the id of a spoken answer: a spoken dialogue goes on from its sound")
        audio = known
        text = text or (message.audio or {}).get("transcript")
    if text is None and audio is None:
        raise bad(name, "expected words or a recording, got neither")
    if text is not None and len(text) > service.limits.text * 4:
        raise bad(name, f"expected at most {service.limits.text * 4} characters, got {len(text)}")
    return Said(name, message.role, text, audio)


async def _recording(given: dict[str, Any] | None, name: str, service: Service) -> Tensor:
    """The codes of an `input_audio` part; its format is seen, not believed."""
    data = (given or {}).get("data")
    if not isinstance(data, str):
        raise bad(f"{name}.input_audio", "expected {data: base64, format}")
    try:
        decoded = base64.b64decode(data.rpartition("base64,")[2] if data.startswith("data:") else data, validate=True)
    except (binascii.Error, ValueError) as error:  # an address, for example, which is not fetched
        raise bad(f"{name}.input_audio.data", "expected base64") from error
    wave = await service.decode(check_size(decoded, service.limits.upload_bytes, name), name)
    return await service.encode(wave, name)


def _words(message: Message, number: int) -> str:
    """A message that may hold words only."""
    if isinstance(message.content, str):
        return message.content
    if any(part.type != "text" for part in message.content or []):
        raise bad(f"messages[{number}]", "expected words only")
    return "\n".join(part.text or "" for part in message.content or [])
