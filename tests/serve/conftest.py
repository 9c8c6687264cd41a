"""A real server process on a small golden language model with the nano tokenizer, and clients for it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

GOLDEN = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden"))
LANGUAGE_MODEL = GOLDEN / "ckpt" / "A_lm_s0"
SENTENCE = files("mimo_audio") / "assets" / "sentence.wav"


@dataclass
class Server:
    """A running `mimo-audio serve`."""

    url: str
    process: subprocess.Popen
    log: Path

    @property
    def open_answers(self) -> int:
        """How many answers are made or wait, as /metrics has it."""
        return int(self.metric("mimo_open_answers"))

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.split()[0] == name)

    def eventually(self, true: Callable[[], bool], seconds: float = 20) -> None:
        """Waits until it is true."""
        until = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < until, self.log.read_text()[-2000:]
            time.sleep(0.05)


def serve(log: Path, *options: object, ready: bool = True) -> Server:
    """Starts one on a free port and waits until it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mimo_audio", "serve", "--port", port, "--json-logs", "--name", "tiny"),
        *("--model", LANGUAGE_MODEL, "--tokenizer", "nano", "--device", "cpu", *options),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(list(map(str, command)), env=environment, stderr=file)
    scheme = "https" if "--tls-cert" in options else "http"
    server = Server(f"{scheme}://127.0.0.1:{port}", process, log)
    until = time.monotonic() + 120
    while ready:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        try:
            if httpx.get(f"{server.url}/ready", verify=False).status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    return server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests: 4 answers at once, 4 may wait."""
    log = tmp_path_factory.mktemp("serve") / "log"
    running = serve(log, "--slots", 4, "--max-waiting", 4, "--max-audio-seconds", 60, "--max-upload-mb", 4)
    yield running
    body = {"input": "Hello", "response_format": "wav", "max_seconds": 3}
    try:
        with httpx.stream("POST", f"{running.url}/v1/audio/speech", json=body, timeout=60) as answer:
            pieces = answer.iter_bytes()
            next(pieces)
            running.process.send_signal(signal.SIGTERM)
            rest = b"".join(pieces)  # who is being answered hears the end: else this raises
        status = running.process.wait(60)
    finally:
        running.process.kill()
    assert rest
    assert status == 0, log.read_text()[-2000:]
    assert "cut off" not in log.read_text()  # what waited was an answer, not the end of patience
    assert "Cancel " not in log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


@pytest.fixture
def openai(server: Server) -> Iterator[OpenAI]:
    """The official client."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """A client of another family."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def sentence() -> bytes:
    """A WAV file of speech, 3 s."""
    return SENTENCE.read_bytes()
