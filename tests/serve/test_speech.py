"""`/v1/audio/speech` of a real server: formats, events, what is refused; the official client, and httpx."""

import asyncio
import base64
import io
import json

import av
import httpx
import numpy as np
import openai as official
import pytest
from openai import AsyncOpenAI, OpenAI

SHORT = {"max_seconds": 1.2}
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")


def samples(data: bytes, kind: str) -> int:
    """At 24 kHz, as FFmpeg reads them."""
    if kind == "pcm":
        return len(data) // 2
    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.audio[0]
        count = sum(frame.samples for frame in file.decode(stream))
        return count * 24000 // stream.rate


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(openai: OpenAI, kind: str) -> None:
    """All hold the sound of the same answer: 8 patches, 1.28 s; codecs of frames fill up the last."""
    answer = openai.audio.speech.create(
        input="Hello", voice="alloy", model="tts-1", response_format=kind, extra_body=SHORT
    )
    assert abs(samples(answer.content, kind) - 8 * 3840) <= (0 if kind in ("flac", "wav", "pcm") else 2500)


def test_what_is_streamed_is_what_is_sent_whole(http: httpx.Client) -> None:
    body = {"input": "Hello", "response_format": "wav", **SHORT}
    streamed = http.post("/v1/audio/speech", json=body)
    whole = http.post("/v1/audio/speech", json={**body, "stream": False})
    assert streamed.headers["transfer-encoding"] == "chunked"
    assert streamed.content[44:] == whole.content[44:]
    assert int(whole.headers["content-length"]) == 44 + 2 * round(24000 * float(whole.headers["x-audio-seconds"]))
    assert whole.headers["x-finish-reason"] == "length"
    assert whole.content[4:8] == (len(whole.content) - 8).to_bytes(4, "little")
    events = http.post("/v1/audio/speech", json={**body, "response_format": "pcm", "stream_format": "sse"})
    *deltas, last = [json.loads(line[6:]) for line in events.text.splitlines() if line]
    assert b"".join(base64.b64decode(delta["audio"]) for delta in deltas) == whole.content[44:]
    assert last["type"] == "speech.audio.done"
    assert last["finish_reason"] == "length"
    usage = last["usage"]
    assert usage["output_token_details"]["audio_tokens"] == 8
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert int(whole.headers["x-usage-output-tokens"]) == usage["output_tokens"]


def test_seeds(openai: OpenAI) -> None:
    def speak(seed: int) -> bytes:
        options = {"seed": seed, "audio_temperature": 1.0, **SHORT}
        return openai.audio.speech.create(
            input="Hello", voice="nova", model="x", response_format="pcm", extra_body=options
        ).content

    assert speak(1) == speak(1) != speak(2)


def test_sound_comes_before_the_end_and_to_many_at_once(server) -> None:
    async def one(client: AsyncOpenAI, seed: int) -> tuple[int, bytes]:
        options = {"seed": seed, "max_seconds": 3, "guard": None}
        del options["guard"]
        pieces = []
        async with client.audio.speech.with_streaming_response.create(
            input="Hello", voice="echo", model="x", response_format="pcm", extra_body=options
        ) as answer:
            async for piece in answer.iter_bytes():
                pieces.append(piece)
        return len(pieces), b"".join(pieces)

    async def all_of_them() -> list[tuple[int, bytes]]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            alone = await one(client, 1)
            return [alone, *await asyncio.gather(*(one(client, seed) for seed in (1, 2, 3)))]

    alone, same, *others = asyncio.run(all_of_them())
    assert alone[1] == same[1]  # whatever runs beside it
    assert alone[1] not in [sound for _, sound in others]
    assert alone[0] > 1
    assert np.frombuffer(alone[1], "<i2").any()


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"input": ""}, 400, "input"),
        ({"input": "x" * 4097}, 400, "input"),
        ({"speed": 1.5}, 400, "speed"),
        ({"voice": "nobody"}, 404, "voice"),
        ({"response_format": "midi"}, 400, "response_format"),
        ({"colour": "red"}, 400, "colour"),
        ({"seed": 2**70}, 400, "seed"),
        ({"temperature": -1}, 400, "temperature"),
        ({"max_seconds": "inf"}, 400, "max_seconds"),
        ({"freeform": True, "instructions": "slowly"}, 400, None),
    ],
)
def test_refused(http: httpx.Client, change: dict, status: int, param: str | None) -> None:
    answer = http.post("/v1/audio/speech", json={"input": "Hello", **change})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"].count("\n") == 0
    assert answer.headers["x-request-id"].startswith("req_")


def test_the_client_raises_its_own_errors(openai: OpenAI) -> None:
    with pytest.raises(official.BadRequestError, match="speed: expected 1") as caught:
        openai.audio.speech.create(input="Hello", voice="alloy", model="tts-1", speed=2)
    assert caught.value.param == "speed"
    with pytest.raises(official.NotFoundError, match="no voice 'me'"):
        openai.audio.speech.create(input="Hello", voice={"id": "me"}, model="tts-1")


def test_a_body_that_is_no_json(http: httpx.Client) -> None:
    for data in (b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"{" * 5000):
        answer = http.post("/v1/audio/speech", content=data, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
