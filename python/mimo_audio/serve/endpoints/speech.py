"""`POST /v1/audio/speech`: text to speech, as it is made."""

from collections.abc import AsyncIterator
from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from mimo_audio.files.pcm import pcm, wav_header
from mimo_audio.serve.endpoints.common import Drawing, ServiceOf
from mimo_audio.serve.errors import bad
from mimo_audio.serve.responses import Streamed
from mimo_audio.serve.service import Service
from mimo_audio.tasks.streams import AudioDelta, Schedule

router = APIRouter(prefix="/v1/audio", tags=["speech"])


class Speech(Drawing):
    """What is said, by whom and how."""

    input: str = Field(min_length=1)
    model: str | None = None
    voice: str | None = None
    instructions: str | None = Field(None, description="how it is said, in words")
    response_format: Literal["wav", "pcm"] = "wav"
    stream_format: Literal["audio", "sse"] = "audio"
    chunks: Schedule = "ttfa"


@router.post("/speech", response_class=Response)
async def speech(asked: Speech, service: ServiceOf) -> Response:
    """The speech as it is made."""
    if len(asked.input) > service.limits.text:
        raise bad("input", f"expected at most {service.limits.text} characters, got {len(asked.input)}")
    return Streamed(_wav(asked, service), "audio/wav", service.limits.stall_seconds)


async def _wav(asked: Speech, service: Service) -> AsyncIterator[bytes]:
    header = wav_header(service.model.sample_rate) if asked.response_format == "wav" else b""
    voice = service.voices.find(asked.voice)
    async with service.open(
        "speak", asked.input, voice, asked.instructions or None, chunks=asked.chunks, **asked.options()
    ) as answer:
        async for event in answer:
            if isinstance(event, AudioDelta):
                yield header + pcm(event.wave)
                header = b""
