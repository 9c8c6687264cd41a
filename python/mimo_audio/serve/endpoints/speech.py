"""`POST /v1/audio/speech`: text to speech, sent while it is made."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from mimo_audio.serve.encoders import TYPES, Encoder, Format, whole
from mimo_audio.serve.endpoints.common import Body, Drawing, ServiceOf, VoiceField, usage_of
from mimo_audio.serve.errors import ServeError, bad
from mimo_audio.serve.responses import Streamed, answer_while_there, sse_events
from mimo_audio.serve.service import Service
from mimo_audio.tasks.streams import AudioDelta, Completed, Schedule

router = APIRouter(prefix="/v1/audio", tags=["speech"])


class SpeechBody(Drawing, Body):
    """What is said, by whom and how."""

    input: str = Field(min_length=1, description="what is said")
    model: str | None = Field(None, description="any name: there is one model")
    voice: VoiceField = None
    instructions: str | None = Field(None, description="how it is said, in words; the model thinks about it first")
    response_format: Format = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    speed: float = Field(1.0, description="1: the model speaks as it does; instructions can ask for slow or fast")
    freeform: bool = Field(False, description="the input itself says how it is spoken and by whom")
    stream: bool = Field(True, description="false: the whole file at once, with its length and headers on how it ended")
    chunks: Schedule = Field("ttfa", description="the first sound as early as possible, the least work, or between")


@router.post("/speech", response_class=Response)
async def speech(body: SpeechBody, request: Request, service: ServiceOf) -> Response:
    """Speech in the format asked for. An answer that breaks off ends the connection without its end."""
    if body.speed != 1:
        raise bad("speed", f"expected 1, got {body.speed:g}: ask for it in the instructions, as 'slowly'")
    if len(body.input) > service.limits.text:
        raise bad("input", f"expected at most {service.limits.text} characters, got {len(body.input)}")
    arguments = {"voice": service.voices.find(body.voice), "style": body.instructions or None, **body.options()}
    if body.freeform:
        arguments["freeform"] = True
    if body.stream_format == "sse":
        events = sse_events(_events(body, service, arguments))
        return Streamed(events, "text/event-stream", service.limits.stall_seconds, {"Cache-Control": "no-cache"})
    if not body.stream:
        return await answer_while_there(request, _whole(body, service, arguments))
    return Streamed(_audio(body, service, arguments), TYPES[body.response_format], service.limits.stall_seconds)


async def _pieces(
    body: SpeechBody, service: Service, arguments: dict[str, Any]
) -> AsyncIterator[bytes | Completed[Any]]:
    """The encoded speech, then Completed."""
    encoder = Encoder(body.response_format, service.model.sample_rate)
    async with service.open("speak", body.input, chunks=body.chunks, **arguments) as answer:
        async for event in answer:
            if isinstance(event, AudioDelta):
                if data := await asyncio.to_thread(encoder.push, event.wave):
                    yield data
            elif isinstance(event, Completed):
                if data := encoder.finish():
                    yield data
                yield event


async def _audio(body: SpeechBody, service: Service, arguments: dict[str, Any]) -> AsyncIterator[bytes]:
    async for piece in _pieces(body, service, arguments):
        if isinstance(piece, bytes):
            yield piece


async def _events(body: SpeechBody, service: Service, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    async for piece in _pieces(body, service, arguments):
        if isinstance(piece, bytes):
            yield {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()}
        else:
            reason = piece.result.stats.reason
            yield {"type": "speech.audio.done", "usage": usage_of(piece), "finish_reason": reason}


async def _whole(body: SpeechBody, service: Service, arguments: dict[str, Any]) -> Response:
    async with service.open("speak", body.input, chunks="throughput", **arguments) as answer:
        async for _ in answer:
            pass
    completed = answer.completed
    if completed is None:
        raise ServeError(500, "the answer broke off", "no_answer")
    said, usage = completed.result, completed.usage
    data = await asyncio.to_thread(whole, body.response_format, said.wave, said.sample_rate)
    headers = {
        "X-Finish-Reason": said.stats.reason,
        "X-Audio-Seconds": f"{said.duration:.3f}",
        "X-Usage-Input-Tokens": str(usage.prompt),
        "X-Usage-Output-Tokens": str(usage.text + usage.patches),
    }
    return Response(data, media_type=TYPES[body.response_format], headers=headers)
