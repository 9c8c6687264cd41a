"""The settings of a session: what `session.update` and `response.create` may change, checked, and how it is shown."""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from mimo_audio.serve.realtime.errors import flag, object_of, text_of, unsupported, whole, wrong
from mimo_audio.serve.realtime.sound import RATE, RATES, Format
from mimo_audio.serve.realtime.vad import TurnDetection

Modality: TypeAlias = Literal["audio", "text"]
LONGEST = 20_000  # characters of instructions
MOST_TOKENS = 4096
DETECTION = TurnDetection()
LANGUAGES = ("en", "zh")
# What the protocol knows and no MiMo-Audio model does: null, or the value that asks for nothing, is accepted.
ABSENT: dict[str, tuple[tuple[object, ...], str]] = {
    "tools": (([],), "this model calls no tools"),
    "tool_choice": (("auto", "none"), "this model calls no tools"),
    "parallel_tool_calls": ((True, False), ""),
    "tracing": ((), "this server keeps no traces"),
    "prompt": ((), "this server stores no prompts: send instructions"),
    "reasoning": ((), "spoken answers are given without reasoning"),
    "include": (([],), "there are no log probabilities of transcripts"),
}


@dataclass(frozen=True)
class Truncation:
    """What becomes of a dialogue that is longer than the model's context: its beginning is left out, or it is an error.

    retention: the share of the context that remains then. most: a lower limit than the context's.
    """

    allowed: bool = True
    retention: float = 1.0
    most: int | None = None


@dataclass(frozen=True)
class Settings:
    """A session's; those of a response are the same with what its event overrides."""

    kind: Literal["realtime", "transcription"] = "realtime"
    voice: str = "default"
    instructions: str = ""
    modality: Modality = "audio"
    most_tokens: int | None = None
    input_format: Format = "audio/pcm"
    output_format: Format = "audio/pcm"
    detection: TurnDetection | None = DETECTION
    transcribe: bool = False
    language: str = "en"
    transcription_model: str | None = None
    truncation: Truncation = Truncation()

    def updated(self, given: object, name: str = "session") -> "Settings":
        """With what a client gave. Raises EventError."""
        known = ("type", "model", "audio", "instructions", "max_output_tokens", "output_modalities", "truncation")
        changes = object_of(given, name, (*known, *ABSENT))
        kind = changes.get("type", self.kind)
        if kind not in ("realtime", "transcription"):
            raise wrong(f"{name}.type", "'realtime' or 'transcription'", kind)
        settings = replace(self, kind=kind, transcribe=self.transcribe or kind == "transcription")
        if changes.get("model") is not None:
            text_of(changes["model"], f"{name}.model", 256)  # a server has one model, whatever it is called
        if changes.get("truncation") is not None:
            settings = replace(settings, truncation=_truncation(changes["truncation"], f"{name}.truncation"))
        settings = settings._common(changes, name)
        audio = object_of(changes.get("audio") or {}, f"{name}.audio", ("input", "output"))
        if audio.get("output") is not None:
            settings = settings._output(audio["output"], f"{name}.audio.output", ("format", "voice", "speed"))
        return settings._input(audio["input"], f"{name}.audio.input") if audio.get("input") is not None else settings

    def of_response(self, given: dict[str, Any], name: str = "response") -> "Settings":
        """With what a `response.create` overrides, for that response. Raises EventError."""
        audio = object_of(given.get("audio") or {}, f"{name}.audio", ("output",))
        settings = self._common(given, name)
        if audio.get("output") is not None:
            settings = settings._output(audio["output"], f"{name}.audio.output", ("format", "voice"))
        return settings

    def _common(self, changes: dict[str, Any], name: str) -> "Settings":
        """What both events may change."""
        for key, (nothing, why) in ABSENT.items():
            value = changes.get(key)
            if value is not None and value not in nothing:
                raise unsupported(f"{name}.{key}", why or "expected true or false")
        settings = self
        if changes.get("instructions") is not None:
            said = text_of(changes["instructions"], f"{name}.instructions", LONGEST)
            settings = replace(settings, instructions=said)
        if changes.get("max_output_tokens") is not None:
            most = changes["max_output_tokens"]
            tokens = None if most == "inf" else whole(most, f"{name}.max_output_tokens", 1, MOST_TOKENS)
            settings = replace(settings, most_tokens=tokens)
        if changes.get("output_modalities") is not None:
            given = changes["output_modalities"]
            if given not in (["audio"], ["text"]):
                raise wrong(f"{name}.output_modalities", "['audio'], which has a transcript, or ['text']", given)
            settings = replace(settings, modality=given[0])
        return settings

    def _output(self, given: object, name: str, known: tuple[str, ...]) -> "Settings":
        output, settings = object_of(given, name, known), self
        if output.get("format") is not None:
            settings = replace(settings, output_format=_format(output["format"], f"{name}.format"))
        if output.get("voice") is not None:
            voice = output["voice"]
            if isinstance(voice, dict):
                voice = object_of(voice, f"{name}.voice", ("id",)).get("id")
            settings = replace(settings, voice=text_of(voice, f"{name}.voice", 256, 1))
        if output.get("speed") not in (None, 1):
            raise unsupported(
                f"{name}.speed", "expected 1: the model speaks at its own pace; say how in the instructions"
            )
        return settings

    def _input(self, given: object, name: str) -> "Settings":
        heard = object_of(given, name, ("format", "noise_reduction", "transcription", "turn_detection"))
        settings = self
        if heard.get("format") is not None:
            settings = replace(settings, input_format=_format(heard["format"], f"{name}.format"))
        if heard.get("noise_reduction") is not None:
            raise unsupported(f"{name}.noise_reduction", "expected null: the model hears the sound as it is")
        if "transcription" in heard:
            settings = settings._transcription(heard["transcription"], f"{name}.transcription")
        if "turn_detection" in heard:
            detection = _detection(heard["turn_detection"], self.detection, f"{name}.turn_detection")
            settings = replace(settings, detection=detection)
        return settings

    def _transcription(self, given: object, name: str) -> "Settings":
        if given is None:
            return replace(self, transcribe=self.kind == "transcription")
        wanted = object_of(given, name, ("model", "language", "prompt", "delay", "keywords", "languages"))
        for key in ("prompt", "keywords", "languages", "delay"):
            if wanted.get(key):
                raise unsupported(f"{name}.{key}", "the model transcribes without it")
        language = wanted.get("language") or self.language
        if language not in LANGUAGES:
            raise wrong(f"{name}.language", " or ".join(LANGUAGES), language)
        model = wanted.get("model")
        return replace(
            self,
            transcribe=True,
            language=language,
            transcription_model=None if model is None else text_of(model, f"{name}.model", 256),
        )

    def shown(self) -> dict[str, Any]:
        """The fields of the session object."""
        transcription = {"model": self.transcription_model, "language": self.language} if self.transcribe else None
        heard = {
            "format": _shown(self.input_format),
            "noise_reduction": None,
            "transcription": transcription,
            "turn_detection": None if self.detection is None else {"type": "server_vad", **vars(self.detection)},
        }
        if self.kind == "transcription":
            return {"audio": {"input": heard}, "include": None}
        truncation: object = "auto" if self.truncation.allowed else "disabled"
        if self.truncation.retention < 1 or self.truncation.most is not None:
            truncation = {"type": "retention_ratio", "retention_ratio": self.truncation.retention}
            if self.truncation.most is not None:
                truncation["token_limits"] = {"post_instructions": self.truncation.most}
        return {
            "output_modalities": [self.modality],
            "instructions": self.instructions,
            "audio": {"input": heard, "output": self.shown_output() | {"speed": 1.0}},
            "max_output_tokens": self.shown_most(),
            "tools": [],
            "tool_choice": "auto",
            "truncation": truncation,
            "tracing": None,
            "prompt": None,
            "include": None,
        }

    def shown_output(self) -> dict[str, Any]:
        """The output's format and voice."""
        return {"format": _shown(self.output_format), "voice": self.voice}

    def shown_most(self) -> int | str:
        """The limit of tokens."""
        return "inf" if self.most_tokens is None else self.most_tokens


def _shown(kind: Format) -> dict[str, Any]:
    return {"type": kind, "rate": RATE} if kind == "audio/pcm" else {"type": kind}


def _format(given: object, name: str) -> Format:
    wanted = object_of(given, name, ("type", "rate"))
    kind = wanted.get("type", "audio/pcm")
    if not isinstance(kind, str) or kind not in RATES:
        raise wrong(f"{name}.type", " or ".join(RATES), kind)
    if wanted.get("rate") not in (None, RATES[kind]):
        raise wrong(f"{name}.rate", f"{RATES[kind]} for {kind}", wanted["rate"])
    found: Format = kind
    return found


def _detection(given: object, now: TurnDetection | None, name: str) -> TurnDetection | None:
    if given is None:
        return None
    if isinstance(given, dict) and given.get("type") == "semantic_vad":
        raise unsupported(
            f"{name}.type", "expected server_vad or null: there is no model of what ends a turn by its meaning"
        )
    wanted = object_of(given, name, ("type", *TurnDetection.__dataclass_fields__))
    if wanted.get("type", "server_vad") != "server_vad":
        raise wrong(f"{name}.type", "server_vad", wanted["type"])
    found = now or TurnDetection()
    for key, value in wanted.items():
        param = f"{name}.{key}"
        if key == "type" or (value is None and key != "idle_timeout_ms"):
            continue
        if key == "threshold":
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise wrong(param, "a number from 0 to 1", value)
        elif key in ("create_response", "interrupt_response"):
            flag(value, param)
        elif key == "idle_timeout_ms":
            value is None or whole(value, param, 5000, 30000)
        else:
            whole(value, param, 0, 10_000)
        found = replace(found, **{key: value})
    return found


def _truncation(given: object, name: str) -> Truncation:
    if given in ("auto", "disabled"):
        return Truncation(given == "auto")
    if not isinstance(given, dict):
        raise wrong(name, "auto, disabled or a retention_ratio", given)
    wanted = object_of(given, name, ("type", "retention_ratio", "token_limits"))
    ratio = wanted.get("retention_ratio", 1)
    if wanted.get("type") != "retention_ratio":
        raise wrong(f"{name}.type", "retention_ratio", wanted.get("type"))
    if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 < ratio <= 1:
        raise wrong(f"{name}.retention_ratio", "a number above 0 and up to 1", ratio)
    limits = object_of(wanted.get("token_limits") or {}, f"{name}.token_limits", ("post_instructions",))
    most = limits.get("post_instructions")
    if most is not None:
        most = whole(most, f"{name}.token_limits.post_instructions", 1, 1 << 40)
    return Truncation(True, float(ratio), most)
