"""`POST /v1/audio/transcriptions`: a recording to its words, long ones in pieces that are cut where it is silent."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.responses import JSONResponse, PlainTextResponse, Response
from torch import Tensor

from mimo_audio.engine import Usage
from mimo_audio.serve.endpoints.common import ServiceOf
from mimo_audio.serve.errors import bad
from mimo_audio.serve.responses import Streamed, answer_while_there, sse_events
from mimo_audio.serve.service import Service
from mimo_audio.serve.uploads import check_size
from mimo_audio.tasks.streams import Completed, TextDelta

router = APIRouter(prefix="/v1/audio", tags=["transcriptions"])

LONGEST, SHORTEST = 20.0, 8.0  # seconds of a piece
WINDOW = 0.1  # seconds over which loudness is taken: a cut is in the middle of the quietest one
SILENCE = 1e-3  # of full scale (-60 dB): nobody speaks in a piece whose loudest window is quieter
TOKENS, TOKENS_PER_SECOND = 20, 15.0  # more than anybody says: a transcript beyond that has run away


@dataclass(frozen=True)
class Segment:
    """What is said from `start` to `end` (seconds)."""

    start: float
    end: float
    text: str
    usage: Usage | None


@router.post("/transcriptions", response_class=Response)
async def transcriptions(
    request: Request,
    service: ServiceOf,
    file: Annotated[UploadFile, File(description="wav, mp3, flac, ogg, opus, m4a, webm or aac")],
    model: Annotated[str | None, Form(description="any name: there is one model")] = None,
    language: Annotated[Literal["en", "zh"], Form(description="of the request to the model")] = "en",
    response_format: Annotated[Literal["json", "text", "verbose_json", "srt", "vtt"], Form()] = "json",
    stream: Annotated[bool, Form()] = False,
    temperature: Annotated[float | None, Form(ge=0, le=2)] = None,
    seed: Annotated[int | None, Form(ge=-(2**63), lt=2**63)] = None,
    prompt: Annotated[str | None, Form(description="not supported: must be empty")] = None,
    chunking_strategy: Annotated[str | None, Form(description="'auto', which is what happens")] = None,
    timestamp_granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
    include: Annotated[list[str] | None, Form(alias="include[]", description="not supported")] = None,
) -> Response:
    """The words, as JSON, text or subtitles, or as events while they are found."""
    if prompt:
        raise bad("prompt", "this model takes none")
    if chunking_strategy not in (None, "", "auto"):
        raise bad("chunking_strategy", f"expected 'auto', got {chunking_strategy!r:.80}")
    if set(timestamp_granularities or ()) - {"segment"}:
        raise bad("timestamp_granularities", f"expected 'segment', got {timestamp_granularities!r:.80}")
    if include:
        raise bad("include", "this model gives no log probabilities")
    if stream and response_format not in ("json", "text"):
        raise bad("stream", f"expected response_format json, got {response_format}")
    options = {name: value for name, value in (("temperature", temperature), ("seed", seed)) if value is not None}
    data = check_size(await file.read(), service.limits.upload_bytes)
    wave = await answer_while_there(request, service.decode(data))
    heard = _segments(service, wave, language, options)
    if stream:
        events = sse_events(_events(heard))
        return Streamed(events, "text/event-stream", service.limits.stall_seconds, {"Cache-Control": "no-cache"})
    segments = await answer_while_there(request, _all(heard))
    return _written(segments, response_format, len(wave) / service.model.sample_rate, language)


async def _segments(
    service: Service, wave: Tensor, language: str, options: dict[str, Any]
) -> AsyncIterator[str | Segment]:
    """Text as it is found, and after the text of each piece its Segment."""
    rate, at = service.model.sample_rate, 0
    for piece in cut(wave, rate):
        start, at = at / rate, at + len(piece)
        text, usage = "", None
        if loudness(piece, rate).max() >= SILENCE:
            most = TOKENS + ceil(TOKENS_PER_SECOND * len(piece) / rate)
            codes = await service.encode((piece, rate), "file")
            async with service.open("transcribe", codes, language, max_new=most, **options) as answer:
                async for event in answer:
                    if isinstance(event, TextDelta) and not event.thought:
                        yield event.text
                    elif isinstance(event, Completed):
                        text, usage = event.result, event.usage
        yield Segment(start, at / rate, text, usage)


async def _all(heard: AsyncIterator[str | Segment]) -> list[Segment]:
    return [item async for item in heard if isinstance(item, Segment)]


async def _events(heard: AsyncIterator[str | Segment]) -> AsyncIterator[dict[str, Any]]:
    segments, begun = [], False
    async for item in heard:
        if isinstance(item, Segment):
            segments.append(item)
            begun = False
        else:
            first = not begun and any(segment.text for segment in segments)
            begun = True
            yield {"type": "transcript.text.delta", "delta": f" {item.lstrip()}" if first else item}
    yield {"type": "transcript.text.done", "text": text_of(segments), "usage": usage_of(segments)}


def _written(segments: list[Segment], kind: str, duration: float, language: str) -> Response:
    text = text_of(segments)
    if kind == "text":
        return PlainTextResponse(text + "\n")
    if kind in ("srt", "vtt"):
        return PlainTextResponse(subtitles(segments, kind), media_type="text/vtt" if kind == "vtt" else "text/plain")
    if kind == "json":
        return JSONResponse({"text": text, "usage": usage_of(segments)})
    listed = [
        {"id": n, "start": round(part.start, 3), "end": round(part.end, 3), "text": part.text}
        for n, part in enumerate(segments)
    ]
    whole = {"task": "transcribe", "language": language, "duration": round(duration, 3), "text": text}
    return JSONResponse({**whole, "segments": listed, "usage": usage_of(segments)})


def cut(wave: Tensor, rate: int) -> list[Tensor]:
    """A wave [N] in pieces of LONGEST seconds at most, each cut at the quietest place after its first SHORTEST."""
    pieces = []
    while len(wave) > LONGEST * rate:
        first = int(SHORTEST * rate)
        quietest = int(loudness(wave[first : int(LONGEST * rate)], rate).argmin())
        at = first + int((quietest + 0.5) * WINDOW * rate)
        pieces.append(wave[:at])
        wave = wave[at:]
    return [*pieces, wave]


def loudness(wave: Tensor, rate: int) -> Tensor:
    """wave [N] -> the root mean square [n] of every WINDOW of it; of all of it if it is shorter."""
    size = min(len(wave), int(WINDOW * rate))
    return torch.sqrt(wave[: len(wave) // size * size].unflatten(0, (-1, size)).square().mean(1))


def subtitles(segments: list[Segment], kind: str) -> str:
    """SubRip or WebVTT of the segments in which something is said."""
    comma = "," if kind == "srt" else "."
    said = [segment for segment in segments if segment.text]
    blocks = [f"{n}\n" * (kind == "srt") + f"{clock(s.start, comma)} --> {clock(s.end, comma)}\n{_line(s.text)}\n"
              for n, s in enumerate(said, 1)]  # fmt: skip
    return ("WEBVTT\n\n" if kind == "vtt" else "") + "\n".join(blocks)


def _line(text: str) -> str:
    """Text that ends no subtitle and looks like no arrow."""
    return " ".join(text.split()).replace("-->", "->")


def clock(seconds: float, comma: str) -> str:
    """Hours, minutes, seconds and milliseconds."""
    ms = round(seconds * 1000)
    return f"{ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}{comma}{ms % 1000:03d}"


def text_of(segments: list[Segment]) -> str:
    """All that is said."""
    return " ".join(segment.text for segment in segments if segment.text)


def usage_of(segments: list[Segment]) -> dict[str, Any]:
    """OpenAI's usage by tokens."""
    usages = [segment.usage for segment in segments if segment.usage is not None]
    read, made = sum(usage.prompt for usage in usages), sum(usage.text + usage.patches for usage in usages)
    return {"type": "tokens", "input_tokens": read, "output_tokens": made, "total_tokens": read + made}
