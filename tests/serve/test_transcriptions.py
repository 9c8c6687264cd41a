"""`/v1/audio/transcriptions`: formats of a real server, events, uploads that are none; cuts of long recordings."""

import io
import json

import av
import httpx
import numpy as np
import pytest
import soundfile
import torch
from openai import OpenAI

from mimo_audio.engine import Usage
from mimo_audio.serve.endpoints.transcriptions import LONGEST, SHORTEST, Segment, cut, subtitles


def short(sentence: bytes, seconds: float = 1.0, kind: str = "WAV", **options) -> bytes:
    wave, rate = soundfile.read(io.BytesIO(sentence), frames=int(seconds * 24000))
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, **options)
    return file.getvalue()


def ask(http: httpx.Client, data: bytes, **fields) -> httpx.Response:
    return http.post("/v1/audio/transcriptions", data=fields, files={"file": ("a", data)})


def test_forms_of_an_answer(http: httpx.Client, openai: OpenAI, sentence: bytes) -> None:
    data = short(sentence)
    answer = openai.audio.transcriptions.create(file=data, model="whisper-1")
    assert answer.text
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert ask(http, data, response_format="text").text == answer.text + "\n"
    full = openai.audio.transcriptions.create(
        file=data, model="whisper-1", response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert full.text == answer.text
    assert full.duration == 1.0
    assert [(part.start, part.end, part.text) for part in full.segments] == [(0.0, 1.0, answer.text)]
    assert ask(http, data, response_format="srt").text.startswith("1\n00:00:00,000 --> 00:00:01,000\n")
    assert ask(http, data, response_format="vtt").text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n")
    events = list(openai.audio.transcriptions.create(file=data, model="gpt-4o-transcribe", stream=True))
    assert "".join(event.delta for event in events[:-1]).strip() == events[-1].text == answer.text
    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}


@pytest.mark.parametrize("kind", ["FLAC", "MP3", "OGG", "AIFF"])
def test_what_libsndfile_reads(http: httpx.Client, sentence: bytes, kind: str) -> None:
    assert ask(http, short(sentence, kind=kind)).json()["text"]


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("webm", "libopus"), ("adts", "aac")])
def test_what_browsers_and_telephones_record(http: httpx.Client, container: str, codec: str) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48000, layout="stereo")
        sound = (np.sin(np.arange(96000) * 0.02) * 9000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 48000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    said = ask(http, file.getvalue(), response_format="verbose_json", seed=1, temperature=0).json()
    assert said["duration"] == pytest.approx(1.0, abs=0.1)


def test_silence_is_no_text(http: httpx.Client) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(24000), 24000, format="WAV")
    assert ask(http, file.getvalue()).json() == {
        "text": "",
        "usage": {"type": "tokens", "input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "Hello"}, "prompt"),
        ({"language": "fr"}, "language"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"include[]": "logprobs"}, "include"),
        ({"stream": "true", "response_format": "srt"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_refused(http: httpx.Client, sentence: bytes, fields: dict, param: str) -> None:
    answer = ask(http, short(sentence), **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_uploads_that_are_no_recording_or_too_much(http: httpx.Client, sentence: bytes) -> None:
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    damaged = short(sentence, kind="FLAC")
    damaged = damaged[:2000] + bytes(500) + damaged[2500:]
    header = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x00\x00\x00\x00\0\0\0\0\2\0\x10\0data\0\0\0\0"
    m4a = b"\0\0\0\x20ftypM4A " + bytes(100)
    for data in (
        b"",
        b"x",
        playlist,
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        header,
        m4a,
        b"\xff\xf1" + bytes(99),
    ):
        answer = ask(http, data)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), data
    assert ask(http, damaged).status_code in (200, 400)
    wave = io.BytesIO()
    soundfile.write(wave, np.ones(8000 * 61) * 0.01, 8000, format="WAV")  # 976 kB, but a second too long
    assert "at most 60 s" in ask(http, wave.getvalue()).json()["error"]["message"]
    bomb = io.BytesIO()
    soundfile.write(bomb, np.zeros((48000 * 60 * 20, 2), np.int16), 48000, format="FLAC")  # 20 minutes, 20 kB
    assert ask(http, bomb.getvalue()).status_code == 400
    large = ask(http, bytes(5 << 20))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
    assert http.get("/ready").status_code == 200


def test_long_recordings_are_cut_where_it_is_quiet() -> None:
    rate = 8000
    loud = torch.randn(int(50.5 * rate), generator=torch.Generator().manual_seed(0)) * 0.1
    for second in (13.0, 27.0):
        loud[int(second * rate) : int((second + 0.3) * rate)] *= 0.001
    pieces = cut(loud, rate)
    assert torch.equal(torch.cat(pieces), loud)
    ends = np.cumsum([len(piece) / rate for piece in pieces])
    assert 13.0 <= ends[0] <= 13.3
    assert 27.0 <= ends[1] <= 27.3
    assert all(SHORTEST <= len(piece) / rate <= LONGEST for piece in pieces[:-1])
    assert cut(loud[:100], rate)[0].shape == (100,)


def test_subtitles() -> None:
    usage = Usage(1, 0, 1, 0, 0.0, None, 0.0)
    said = [Segment(0, 3599.9996, "One --> two\n\nthree", usage), Segment(3600, 3601.5, "", usage)]
    said.append(Segment(3601.5, 3602.25, "four", usage))
    assert subtitles(said, "srt") == (
        "1\n00:00:00,000 --> 01:00:00,000\nOne -> two three\n\n2\n01:00:01,500 --> 01:00:02,250\nfour\n"
    )
    assert subtitles(said, "vtt").startswith(
        "WEBVTT\n\n00:00:00.000 --> 01:00:00.000\nOne -> two three\n\n01:00:01.500"
    )


def test_text_of_pieces_is_joined_by_spaces(http: httpx.Client, sentence: bytes) -> None:
    wave, rate = soundfile.read(io.BytesIO(sentence), frames=24000)
    long = np.concatenate([wave, np.zeros(14 * rate), wave, np.zeros(12 * rate)])
    file = io.BytesIO()
    soundfile.write(file, long, rate, format="FLAC")
    said = ask(http, file.getvalue(), response_format="verbose_json").json()
    assert [bool(part["text"]) for part in said["segments"]].count(True) == 2
    assert said["text"] == " ".join(part["text"] for part in said["segments"] if part["text"])
    events = [json.loads(line[6:]) for line in ask(http, file.getvalue(), stream="true").text.splitlines() if line]
    assert events[-1]["text"] == said["text"]
