"""Realtime against a real server process: the official client, and a WebSocket of another family."""

import asyncio
import base64
import json

import numpy as np
import pytest
from openai import AsyncOpenAI, OpenAI
from websockets.sync.client import connect

pytest.importorskip("silero_vad", reason="the extra [serve] is not installed")

SHORT = {"type": "realtime", "max_output_tokens": 30}


def spoken(sentence: bytes, seconds: float = 1.5) -> bytes:
    """A quarter of a second of silence, speech, and silence that ends the turn; 24 kHz PCM."""
    speech = np.frombuffer(sentence[44:], "<i2")[: int(seconds * 24000)]
    return np.concatenate([np.zeros(6000, "<i2"), speech, np.zeros(18000, "<i2")]).astype("<i2").tobytes()


def test_the_official_client_speaks_and_is_answered(openai: OpenAI, sentence: bytes) -> None:
    sound = spoken(sentence)
    with openai.realtime.connect(model="any") as connection:
        connection.session.update(session=SHORT)
        for start in range(0, len(sound), 9600):
            connection.input_audio_buffer.append(audio=base64.b64encode(sound[start : start + 9600]).decode())
        kinds, samples = [], 0
        for event in connection:
            assert event.type != "error", event
            kinds.append(event.type)
            if event.type == "response.output_audio.delta":
                samples += len(base64.b64decode(event.delta)) // 2
            elif event.type == "response.done":
                break
        assert kinds[:3] == ["session.created", "conversation.created", "session.updated"]
        assert "input_audio_buffer.speech_started" in kinds
        assert samples > 0
        assert event.response.usage.output_token_details.audio_tokens * 3840 >= samples
        connection.conversation.item.truncate(item_id=event.response.output[0].id, content_index=0, audio_end_ms=160)
        while (event := connection.recv()).type != "conversation.item.truncated":
            pass
        assert event.audio_end_ms == 160


def test_the_official_client_interrupts(openai: OpenAI, server) -> None:
    async def run() -> None:
        client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none")
        async with client.realtime.connect(model="any") as connection:
            await connection.conversation.item.create(
                item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
            )
            await connection.response.create()
            async for event in connection:
                if event.type == "response.output_audio.delta":
                    await connection.response.cancel()
                    break
            async for event in connection:
                if event.type == "response.done":
                    break
            assert event.response.status == "cancelled"
            assert event.response.status_details.reason == "client_cancelled"
        await client.close()

    asyncio.run(run())
    server.eventually(lambda: server.open_answers == 0)


def test_a_plain_websocket_asks_in_writing_and_survives_its_mistakes(server) -> None:
    with connect(server.url.replace("http", "ws") + "/v1/realtime", subprotocols=["realtime"]) as socket:
        assert socket.subprotocol == "realtime"

        def until(kind: str) -> dict:
            while (event := json.loads(socket.recv(60)))["type"] != kind:
                pass
            return event

        for wrong in ("{", "[]", json.dumps({"type": "nonsense", "event_id": "mine"})):
            socket.send(wrong)
            error = until("error")["error"]
        assert error["event_id"] == "mine"
        socket.send(b"\0\1")
        until("error")
        socket.send(json.dumps({"type": "session.update", "session": {**SHORT, "output_modalities": ["text"]}}))
        until("session.updated")
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
        socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        socket.send(json.dumps({"type": "response.create"}))
        assert until("response.done")["response"]["output"][0]["content"][0]["type"] == "output_text"


def test_a_client_that_vanishes_frees_its_place(server) -> None:
    socket = connect(server.url.replace("http", "ws") + "/v1/realtime")
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
    socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
    socket.send(json.dumps({"type": "response.create"}))
    while json.loads(socket.recv(60))["type"] != "response.created":
        pass
    socket.socket.close()
    server.eventually(lambda: server.open_answers == 0)
