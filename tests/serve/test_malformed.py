"""Requests that nobody would send, made from the server's own schema: each is answered in order, none with a traceback.

MIMO_FUZZ=10000 sends so many (a minute or two for a thousand, as some of them are answered with speech).
"""

import json
import os
import random

import httpx

COUNT = int(os.environ.get("MIMO_FUZZ", "150"))
ODD = (
    None, True, 0, -1, 1, 2**63, -(2**70), 1e308, 0.5, "", "x", "\x00", "\ud800", "a" * 5000,
    "../../etc/passwd", "http://localhost/", [], {}, [[]], [None], {"id": None}, {"id": "x"}, {"": 1}, "alloy",
    "wav", "sse", "nan", "-1", "1e999", "audio", ["audio"], ["text", "audio"],
    [{"role": "user", "content": "Hi"}], [{"role": "assistant"}],
    [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]}],
)  # fmt: skip
QUICK = {"max_seconds": 0.2, "max_tokens": 2}  # what is answered after all


def request(draw: random.Random, schema: dict) -> httpx.Request:
    path = draw.choice(list(schema["paths"]))
    method = draw.choice([*schema["paths"][path], "post", "patch"])
    url = "http://localhost" + path.replace("{voice}", draw.choice(["x", "%00", "..%2f", "a" * 300])).replace(
        "{name}", draw.choice(["x", "%ff", "a/b"])
    )
    content = schema["paths"][path].get(method, {}).get("requestBody", {}).get("content", {})
    kind, body = next(iter(content.items()), ("application/json", {}))
    name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
    fields = list(schema["components"]["schemas"].get(name, {}).get("properties", {"x": {}}))
    values = {field: draw.choice(ODD) for field in fields if draw.random() < 0.3}
    if "input" in fields and draw.random() < 0.7:
        values["input"] = "Hello"
    if "messages" in fields and draw.random() < 0.7:
        values["messages"] = [{"role": "user", "content": "Hello"}]
    values |= {field: value for field, value in QUICK.items() if field in fields and draw.random() < 0.98}
    if kind == "multipart/form-data":
        data = draw.choice([b"", b"RIFF", draw.randbytes(300), b"OggS" + draw.randbytes(99)])
        files = {draw.choice(["file", "audio_sample", "x"]): ("../a\r\n", data)}
        return httpx.Request(method, url, data={key: ascii(value) for key, value in values.items()}, files=files)
    text = json.dumps(values).encode()
    if draw.random() < 0.2:  # cut off, or with a byte changed
        at = draw.randrange(len(text))
        text = draw.choice([text[:at], text[:at] + draw.randbytes(1) + text[at + 1 :], draw.randbytes(50)])
    headers = {"content-type": draw.choice([kind, kind, kind, "text/plain", "multipart/form-data; boundary=x", "x"])}
    return httpx.Request(method, url, content=text, headers=headers)


def test_malformed_requests(server, http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    assert len(schema["paths"]) > 8
    draw = random.Random(0)
    for number in range(COUNT):
        asked = request(draw, schema)
        asked.url = httpx.URL(server.url + asked.url.raw_path.decode())
        asked.headers["host"] = "localhost"
        answer = http.send(asked)
        told = f"{number}: {asked.method} {asked.url} {asked.read()[:300]!r}: {answer.status_code} {answer.text[:300]}"
        assert answer.status_code < 500 or answer.json()["error"]["code"] in ("no_answer", "mute"), told
        assert "Traceback" not in answer.text, told
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, told
    server.eventually(lambda: server.open_answers == 0)
    assert http.get("/ready").status_code == 200
