"""Clients that leave, stall, are too many, have no key or come from elsewhere; and a server that is told to stop."""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from mimo_audio.cli import main
from mimo_audio.serve.app import create_app
from mimo_audio.serve.gate import Gate, Rates
from mimo_audio.serve.responses import Streamed
from mimo_audio.serve.server import run
from mimo_audio.serve.service import Service
from mimo_audio.serve.settings import Limits, Settings, digests, is_loopback

LANGUAGE_MODEL = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden")) / "ckpt" / "A_lm_s0"
LONG = {"input": "Hello", "response_format": "pcm", "max_seconds": 290}


def raw(server, body: dict) -> socket.socket:
    """A connection over which a request was sent."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
    head = ("POST /v1/audio/speech HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    connection.sendall("\r\n".join((*head, f"Content-Length: {len(data)}", "", "")).encode() + data)
    return connection


def test_a_client_that_is_killed_frees_its_place(server) -> None:
    script = f"import httpx; s = httpx.stream('POST', '{server.url}/v1/audio/speech', json={LONG!r}, timeout=60)\n"
    script += "with s as r:\n for n, _ in enumerate(r.iter_raw(1000)): print(n, flush=True)"
    client = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert client.stdout.readline()
    assert server.open_answers == 1
    client.kill()
    client.communicate()
    server.eventually(lambda: server.open_answers == 0)
    server.eventually(lambda: server.metric("mimo_running") == 0)
    server.eventually(lambda: server.metric("mimo_pages_held") == 0)


def test_a_half_open_connection_and_bytes_that_are_no_http(server, http: httpx.Client) -> None:
    connection = raw(server, LONG)
    connection.recv(100)
    whole = raw(server, {**LONG, "stream": False})
    server.eventually(lambda: server.open_answers == 2)
    connection.shutdown(socket.SHUT_WR)  # will say nothing more
    server.eventually(lambda: server.open_answers == 1)
    whole.close()  # before a byte came
    server.eventually(lambda: server.open_answers == 0)
    connection.close()
    for data in (
        b"\x16\x03\x01\0\0",
        b"GET / HTTP/9\r\n\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as other:
            other.sendall(data)
            other.settimeout(10)
            assert b"Traceback" not in other.recv(1000)
    assert http.get("/health").json() == {"status": "ok"}


def test_too_many_are_refused_and_a_slow_reader_holds_nobody_up(server, http: httpx.Client) -> None:
    connections = [raw(server, LONG) for _ in range(8)]  # of which 4 are answered, though nobody reads
    try:
        server.eventually(lambda: server.open_answers == 8)
        refused = http.post("/v1/audio/speech", json=LONG)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        connections.pop().close()
        server.eventually(lambda: server.open_answers == 7)
    finally:
        for connection in connections:
            connection.close()
    server.eventually(lambda: server.open_answers == 0)
    assert http.post("/v1/audio/speech", json={**LONG, "max_seconds": 0.5}).status_code == 200


def test_a_reader_that_takes_nothing_is_let_go() -> None:
    closed = []

    async def pieces():
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    async def receive() -> dict:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        if message.get("body"):
            await asyncio.sleep(60)

    started = time.monotonic()
    asyncio.run(Streamed(pieces(), "audio/wav", 0.2)({"type": "http"}, receive, send))
    assert closed == [True]
    assert time.monotonic() - started < 30


class NoModel(Service):
    """A service that stays as it is before its model is loaded."""

    async def start(self) -> None:
        """Nothing."""


def client(settings: Settings, **options) -> TestClient:
    return TestClient(
        create_app(NoModel(lambda: None, "none", settings.limits), settings), "http://localhost", **options
    )


def test_keys() -> None:
    http = client(Settings(keys=digests(["secret # of Ann", "", "# none", "other"])))
    assert http.get("/v1/models").status_code == 401
    assert http.get("/v1/models").headers["www-authenticate"] == "Bearer"
    for wrong in (
        "Bearer secre",
        "Bearer secret2",
        "Basic secret",
        "Bearer ",
        "Bearer secret # of Ann",
        "Bearer # none",
    ):
        answer = http.get("/v1/models", headers={"Authorization": wrong})
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
    for right in ({"Authorization": "Bearer secret"}, {"authorization": "bearer other"}, {"api-key": "other"}):
        assert http.get("/v1/models", headers=right).status_code == 200
    assert http.get("/metrics").status_code == 401
    assert http.get("/health").status_code == 200
    assert http.get("/ready").status_code == 503  # anybody may know


def test_origins_and_names() -> None:
    """A page of another host must not use a server of this machine, by whatever name it finds it."""
    http = client(Settings(origins=("https://a.example",)))
    assert http.get("/v1/models", headers={"Origin": "https://b.example"}).status_code == 403
    assert http.get("/v1/models", headers={"Host": "b.example:8000"}).status_code == 403
    assert http.get("/v1/models", headers={"Origin": "http://localhost"}).status_code == 200
    allowed = http.get("/v1/models", headers={"Origin": "https://a.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert http.options("/v1/audio/speech", headers=asked).status_code == 200
    open_to_all = client(Settings(host="0.0.0.0", origins=("*",)))
    assert (
        open_to_all.get("/v1/models", headers={"Host": "c.example", "Origin": "https://b.example"}).status_code == 200
    )


def test_rates() -> None:
    http = client(Settings(limits=Limits(per_minute=3)))
    statuses = [http.get("/v1/models").status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    refused = http.get("/v1/models")
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.json()["error"]["type"] == "rate_limit_error"
    rates = Rates(1)
    assert [rates.ask(who) for who in ("a", "b", "a")] == [0, 0, 60]


def test_no_more_than_so_many_are_open() -> None:
    service = NoModel(lambda: None, "none")
    entered, statuses = [], []

    async def never_ends(scope: dict, receive: object, send: object) -> None:
        entered.append(scope)
        await asyncio.Event().wait()

    gate = Gate(never_ends, service, Settings(limits=Limits(requests=2)))
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [(b"host", b"localhost")]}

    async def send(message: dict) -> None:
        statuses.append(message.get("status"))

    async def receive() -> dict:
        return {"type": "http.request"}

    async def ask_thrice() -> None:
        asking = [asyncio.create_task(gate(dict(scope), receive, send)) for _ in range(3)]
        await asyncio.sleep(0)
        await asking[2]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        another = asyncio.create_task(gate(dict(scope), receive, send))
        await asyncio.sleep(0)
        another.cancel()

    asyncio.run(ask_thrice())
    assert len(entered) == 3
    assert statuses[0] == 503


def test_bodies_that_are_too_large() -> None:
    http = client(Settings(limits=Limits(upload_bytes=1000)))
    for content in (b"x" * 1001, (b"x" * 500 for _ in range(3))):  # the second without a length
        answer = http.post("/v1/audio/speech", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_before_it_is_loaded_and_what_is_not_there() -> None:
    http = client(Settings())
    answer = http.post("/v1/audio/speech", json={"input": "Hello"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert http.get("/v1/models/other").status_code == 404
    assert http.get("/../pyproject.toml").status_code == 404
    assert http.put("/v1/models").status_code == 405


def test_which_addresses_need_keys(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIMO_API_KEYS", raising=False)
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--api-keys" in capsys.readouterr().err
    assert main(["serve", "--tls-cert", "x.pem"]) == 2
    assert main(["serve", "--model", "/nowhere"]) == 2
    assert [is_loopback(host) for host in ("localhost", "127.8.0.1", "::1", "[::1]", "0.0.0.0", "10.0.0.1", "a.b")] == [
        *[True] * 4,
        *[False] * 3,
    ]


def test_a_server_that_cannot_start_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A port that is taken, and a model that is found out to be damaged when the server already listens."""
    model = ["--model", str(LANGUAGE_MODEL), "--tokenizer", "nano", "--device", "cpu"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", *model, "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen at 127.0.0.1" in capfd.readouterr().err
    damaged = tmp_path / "damaged"
    shutil.copytree(LANGUAGE_MODEL, damaged)
    (damaged / "model.safetensors").write_bytes(b"\0" * 100)
    assert main(["serve", "--model", str(damaged), "--tokenizer", "nano", "--port", "0"]) == 2
    said = capfd.readouterr().err
    assert "cannot read" in said
    assert "Traceback" not in said


def test_over_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    settings = Settings(port=free_port())
    service = NoModel(lambda: None, "none")
    running = threading.Thread(target=run, args=(service, settings, certificate, key))
    running.start()
    context = ssl.create_default_context(cafile=certificate)
    until = time.monotonic() + 30
    while True:
        try:
            answer = httpx.get(f"https://localhost:{settings.port}/health", verify=context)
            break
        except httpx.ConnectError:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert answer.json() == {"status": "ok"}
    service.on_failure()  # ends it
    running.join(20)
    assert not running.is_alive()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
