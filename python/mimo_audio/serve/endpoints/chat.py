"""`POST /v1/chat/completions`: words and recordings in, words and speech out, whole or while they are made."""

import asyncio
import base64
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from secrets import token_hex
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from torch import Tensor

from mimo_audio.serve.encoders import Encoder, Format, whole
from mimo_audio.serve.endpoints.chat_body import Asked, ChatBody, read
from mimo_audio.serve.endpoints.common import FINISHED, ServiceOf
from mimo_audio.serve.errors import ServeError
from mimo_audio.serve.responses import Streamed, answer_while_there, sse_events
from mimo_audio.serve.service import Service
from mimo_audio.tasks.results import Answer, Speech
from mimo_audio.tasks.streams import AudioDelta, Completed, TextDelta

router = APIRouter(prefix="/v1", tags=["chat"])

KEPT, KEPT_SECONDS = 256, 3600  # spoken answers that a dialogue can go on from


class Spoken(OrderedDict[str, Tensor]):
    """Codes of the last spoken answers by their ids, which are secrets."""

    def keep(self, name: str, codes: Tensor) -> int:
        """-> when it is forgotten at the latest (Unix seconds)."""
        self[name] = codes
        while len(self) > KEPT:
            self.popitem(last=False)
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self.pop, name, None)
        return int(time.time()) + KEPT_SECONDS


@router.post("/chat/completions", response_class=Response)
async def completions(body: ChatBody, request: Request, service: ServiceOf) -> Response:
    """The next message of a dialogue; if the last is the assistant's, that one spoken (as the hosted MiMo does)."""
    state = request.app.state
    if not hasattr(state, "spoken"):
        state.spoken = Spoken()
    asked = await answer_while_there(request, read(body, service, state.spoken))
    if body.stream:
        events = sse_events(_chunks(body, asked, service, state.spoken), done=True)
        return Streamed(events, "text/event-stream", service.limits.stall_seconds, {"Cache-Control": "no-cache"})
    return await answer_while_there(request, _whole(body, asked, service, state.spoken))


async def _whole(body: ChatBody, asked: Asked, service: Service, spoken: Spoken) -> Response:
    async with service.open(asked.task, *asked.arguments, chunks="throughput", **asked.named) as answer:
        async for _ in answer:
            pass
    if answer.completed is None:
        raise ServeError(500, "the answer broke off", "no_answer")
    result: Answer | Speech = answer.completed.result
    speech = result if isinstance(result, Speech) else result.speech
    message: dict[str, Any] = {"role": "assistant", "content": result.text, "refusal": None}
    if result.thought is not None:
        message["reasoning_content"] = result.thought
    if speech is not None:
        name = _audio_id()
        data = await asyncio.to_thread(whole, _format(body), speech.wave, speech.sample_rate)
        message["content"] = None
        message["audio"] = {
            "id": name,
            "data": base64.b64encode(data).decode(),
            "expires_at": spoken.keep(name, speech.codes),
            "transcript": speech.text,
        }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer.completed)}
    head = _head(service, "chat.completion")
    return JSONResponse({**head, "choices": [choice], "usage": _usage(answer.completed)})


async def _chunks(body: ChatBody, asked: Asked, service: Service, spoken: Spoken) -> AsyncIterator[dict[str, Any]]:
    head, name = _head(service, "chat.completion.chunk"), _audio_id()
    encoder: Encoder | None = None

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    async with service.open(asked.task, *asked.arguments, chunks="ttfa", **asked.named) as answer:
        first: dict[str, Any] = {"role": "assistant", "content": ""}
        async for event in answer:
            if first and not isinstance(event, Completed):
                yield chunk(first)
                first = {}
            if isinstance(event, TextDelta):
                kind = "reasoning_content" if event.thought else "content"
                yield chunk(
                    {"audio": {"id": name, "transcript": event.text}}
                    if body.speaks and not event.thought
                    else {kind: event.text}
                )
            elif isinstance(event, AudioDelta):
                encoder = encoder or Encoder(_format(body), event.sample_rate)
                if data := await asyncio.to_thread(encoder.push, event.wave):
                    yield chunk({"audio": {"id": name, "data": base64.b64encode(data).decode()}})
            else:
                if encoder is not None:
                    speech = event.result if isinstance(event.result, Speech) else event.result.speech
                    rest = {"data": base64.b64encode(encoder.finish()).decode()}
                    yield chunk({"audio": {"id": name, **rest, "expires_at": spoken.keep(name, speech.codes)}})
                yield chunk(first, _finish(event))
                if body.stream_options is not None and body.stream_options.include_usage:
                    yield {**head, "choices": [], "usage": _usage(event)}


def _head(service: Service, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{token_hex(12)}", "object": kind, "created": int(time.time()), "model": service.name}


def _audio_id() -> str:
    return f"audio_{token_hex(16)}"


def _format(body: ChatBody) -> Format:
    kind = "wav" if body.audio is None else body.audio.format
    return "pcm" if kind == "pcm16" else kind


def _finish(completed: Completed[Any]) -> str:
    return FINISHED.get(completed.result.stats.reason, "length")


def _usage(completed: Completed[Any]) -> dict[str, Any]:
    """OpenAI's usage: positions read, text tokens and patches (160 ms of speech) made."""
    usage = completed.usage
    made = usage.text + usage.patches
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": made,
        "total_tokens": usage.prompt + made,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"audio_tokens": usage.patches, "text_tokens": usage.text},
    }
