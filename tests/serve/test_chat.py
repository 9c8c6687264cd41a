"""`/v1/chat/completions` of a real server: words and sound in and out, whole and streamed, MiMo's hosted form."""

import base64
import io

import httpx
import openai as official
import pytest
import soundfile
from openai import OpenAI

HELLO = [{"role": "user", "content": "Hello"}]
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}


@pytest.fixture
def recording(sentence: bytes) -> dict:
    """Half a second of speech as a part of a message."""
    wave, rate = soundfile.read(io.BytesIO(sentence), frames=12000)
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV")
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def test_words(openai: OpenAI) -> None:
    whole = openai.chat.completions.create(model="gpt-4o-audio", messages=HELLO, max_tokens=8)
    choice = whole.choices[0]
    assert choice.finish_reason == "length"
    assert whole.usage.completion_tokens == 8
    chunks = list(
        openai.chat.completions.create(
            model="x", messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]).strip() == choice.message.content
    assert [c.choices[0].finish_reason for c in chunks[-3:-1]] == [None, "length"]
    assert chunks[-1].usage.completion_tokens == 8
    assert len({c.id for c in chunks}) == 1


def test_a_system_is_heard_and_history_counts(openai: OpenAI) -> None:
    def prompt(*messages: dict) -> int:
        answer = openai.chat.completions.create(model="x", messages=list(messages), max_tokens=1)
        return answer.usage.prompt_tokens

    told = {"role": "system", "content": "Be brief."}
    before = [*HELLO, {"role": "assistant", "content": "Hi"}]
    assert prompt(*HELLO) < prompt(told, *HELLO) < prompt(told, *before, *HELLO)


def test_thoughts_are_apart(openai: OpenAI) -> None:
    whole = openai.chat.completions.create(model="x", messages=HELLO, max_tokens=8, reasoning_effort="low")
    assert whole.choices[0].message.reasoning_content
    chunks = list(
        openai.chat.completions.create(
            model="x", messages=HELLO, max_tokens=8, stream=True, extra_body={"thinking": True}
        )
    )
    thought = "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks)
    assert thought.strip() == whole.choices[0].message.reasoning_content


def test_speech_and_a_dialogue_that_goes_on_from_it(openai: OpenAI, recording: dict) -> None:
    asked = [{"role": "user", "content": [recording]}]
    whole = openai.chat.completions.create(model="x", messages=asked, max_tokens=40, **SPOKEN)
    heard = whole.choices[0].message.audio
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(heard.data)))
    patches = whole.usage.completion_tokens_details.audio_tokens
    assert (rate, len(wave)) == (24000, patches * 3840)
    assert heard.expires_at > whole.created
    goes_on = [*asked, {"role": "assistant", "audio": {"id": heard.id}, "content": heard.transcript or "Hi"}, *HELLO]
    again = openai.chat.completions.create(model="x", messages=goes_on, max_tokens=40, **SPOKEN)
    assert again.usage.prompt_tokens > whole.usage.prompt_tokens + patches
    goes_on[1] = {"role": "assistant", "content": "Hi", "audio": {"id": "audio_of_nobody"}}
    with pytest.raises(official.BadRequestError, match=r"messages\[1\]\.audio: expected the id"):
        openai.chat.completions.create(model="x", messages=goes_on, **SPOKEN)
    streamed = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    chunks = openai.chat.completions.create(model="x", messages=asked, max_tokens=40, stream=True, **streamed)
    sounds = [sound for c in chunks if (sound := getattr(c.choices[0].delta, "audio", None))]
    data = b"".join(base64.b64decode(sound.data or "") for sound in sounds)
    assert data == base64.b64decode(heard.data)[44:]
    assert "".join(sound.transcript or "" for sound in sounds).strip() == heard.transcript


def test_a_question_about_a_recording(openai: OpenAI, recording: dict) -> None:
    parts = [{"type": "text", "text": "What is it?"}, recording]
    answer = openai.chat.completions.create(model="x", messages=[{"role": "user", "content": parts}], max_tokens=4)
    bare = openai.chat.completions.create(model="x", messages=[{"role": "user", "content": [recording]}], max_tokens=4)
    assert answer.usage.prompt_tokens > bare.usage.prompt_tokens


def test_the_hosted_form_speaks_the_assistants_turn(openai: OpenAI, http: httpx.Client) -> None:
    said = [{"role": "user", "content": "slowly"}, {"role": "assistant", "content": "Hello"}]
    style = {"audio": {"voice": "default", "format": "wav"}, "extra_body": {"max_seconds": 1, "seed": 3}}
    answer = openai.chat.completions.create(model="mimo-v2.5-tts", messages=said[1:], **style)
    body = {"input": "Hello", "response_format": "wav", "max_seconds": 1, "seed": 3, "stream": False}
    assert base64.b64decode(answer.choices[0].message.audio.data) == http.post("/v1/audio/speech", json=body).content


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"colour": 1}, "colour"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.list[Part].0.type"),
        ({"audio": {"format": "midi"}}, "audio.format"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_refused(http: httpx.Client, change: dict, param: str) -> None:
    answer = http.post("/v1/chat/completions", json={"messages": HELLO, **change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] is not None
    assert str(error["param"]).startswith(param[:11])


@pytest.mark.parametrize("data", [None, "file:///etc/passwd", "http://localhost/x.wav", "!!!!", 7, ""])
def test_no_address_of_a_client_is_opened(http: httpx.Client, data: object) -> None:
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    answer = http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [part]}]})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_what_changes_nothing_is_taken(http: httpx.Client) -> None:
    harmless = {"user": "me", "n": 1, "store": False, "stop": None, "logprobs": False, "metadata": {"a": "b"}}
    answer = http.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 1, **harmless})
    assert answer.status_code == 200
