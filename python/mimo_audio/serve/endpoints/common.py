"""What endpoints share: the service of a request, fields of all generating requests, usage and finish reasons."""

from typing import Annotated, Any

from fastapi import Depends
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import HTTPConnection

from mimo_audio.serve.service import Service
from mimo_audio.tasks.streams import Completed

# What OpenAI calls "length" is every end that the model did not choose; a loop counts as its choice.
FINISHED = {"stop": "stop", "repetition": "stop"}


def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]


class Body(BaseModel):
    """A JSON body; fields that nobody knows are refused by name."""

    model_config = ConfigDict(extra="forbid")


def _name(voice: Any) -> Any:
    """OpenAI's {"id": ...} is the same as the id."""
    return voice["id"] if isinstance(voice, dict) and set(voice) == {"id"} else voice


VoiceField = Annotated[str | None, BeforeValidator(_name), Field(description="a voice by name or id")]


class Drawing(BaseModel):
    """Fields of ours, the same for every endpoint: how tokens are drawn, and when an answer ends."""

    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="the same seed gives the same answer")
    temperature: float | None = Field(None, ge=0, le=2, description="of text; 0 takes the likeliest")
    top_k: int | None = Field(None, ge=1, le=10**6)
    top_p: float | None = Field(None, gt=0, le=1)
    audio_temperature: float | None = Field(None, ge=0, le=2, description="of speech")
    audio_top_k: int | None = Field(None, ge=1, le=10**6)
    audio_top_p: float | None = Field(None, gt=0, le=1)
    max_seconds: float | None = Field(None, gt=0, le=3600, description="of speech, at most")

    def options(self) -> dict[str, Any]:
        """Those that were given, as keywords of a task."""
        given = {name: getattr(self, name) for name in Drawing.model_fields}
        return {name: value for name, value in given.items() if value is not None}


def usage_of(completed: Completed[Any]) -> dict[str, Any]:
    """Positions read (text tokens and patches of 160 ms), and made."""
    usage = completed.usage
    made = usage.text + usage.patches
    return {
        "input_tokens": usage.prompt,
        "output_tokens": made,
        "total_tokens": usage.prompt + made,
        "input_token_details": {"cached_tokens": usage.cached},
        "output_token_details": {"text_tokens": usage.text, "audio_tokens": usage.patches},
    }
