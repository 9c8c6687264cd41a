"""encode --stream and decode --stream through real pipes."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio.files.tokens import read_tokens
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.streaming import StreamDecoder, StreamEncoder


@pytest.fixture
def pipe(model: Path):
    """Starts `mimo-audio` with pipes for stdin and stdout."""

    def start(*arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "mimo_audio", *map(str, arguments), "--model", str(model), "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )

    return start


def lines(codes: torch.Tensor) -> bytes:
    return "".join(" ".join(map(str, frame)) + "\n" for frame in codes.T.tolist()).encode()


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Lets the command that runs in this process find `data` on stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))


def test_sound_to_lines_to_sound(mimo, pipe, monkeypatch, model: Path, speech: np.ndarray) -> None:
    tokenizer, samples = AudioTokenizer.from_pretrained(model), (speech * 32767).astype("<i2")
    give(monkeypatch, samples.tobytes())
    run = mimo("encode", "--stream", "--look-ahead", 5, "--n-q", 2)
    stream = StreamEncoder(tokenizer, look_ahead=5, n_q=2)
    codes = torch.cat([stream.push(torch.from_numpy(samples.astype(np.float32) / 32768)), stream.finish()], 1)
    assert (run.out.encode(), run.err) == (lines(codes), "")
    out, err = pipe("decode", "--stream", "--look-ahead", 1).communicate(run.out.encode())
    stream = StreamDecoder(tokenizer, n_q=2, look_ahead=1)
    wave = torch.cat([stream.push(codes), stream.finish()])
    assert err == b""
    expected = (wave * 32768).round().clamp(-32768, 32767).numpy()
    assert np.abs(np.frombuffer(out, "<i2") - expected).max() <= 1


def test_sound_comes_while_codes_are_still_coming(pipe) -> None:
    process = pipe("decode", "--stream", "--look-ahead", 0)
    for _ in range(3):
        process.stdin.write(b"1 2 3\n")
    process.stdin.flush()
    first = process.stdout.read(2 * (3 * 960 - 360))  # would wait forever otherwise
    rest, err = process.communicate(b"1 2 3\n")
    assert (len(first) + len(rest), err, process.returncode) == (2 * 4 * 960, b"", 0)


def test_tokens_file_to_wav(mimo, pipe, wav: Path, tmp_path: Path) -> None:
    assert mimo("encode", wav, tmp_path / "a.tokens").status == 0
    out, err = pipe("decode", "--stream", "wav").communicate((tmp_path / "a.tokens").read_bytes())
    assert err == b""
    assert out[:4] == b"RIFF"
    wave, rate = soundfile.read(io.BytesIO(out), dtype="float32")
    assert (len(wave), rate) == (read_tokens(tmp_path / "a.tokens").samples, 24000)


def test_a_reader_that_has_heard_enough(pipe) -> None:
    process = pipe("decode", "--stream")
    process.stdout.close()
    process.stdin.write(b"1 2 3\n" * 200)
    process.stdin.close()
    assert process.wait(60) == 0
    with process.stderr as stderr:
        assert stderr.read() == b""


@pytest.mark.parametrize(
    ("command", "data", "message"),
    [
        ("decode", b"", "stdin: expected a line of codes"),
        ("decode", b"1 2 3\n1 2\n", "stdin, line 2: expected 3 codes as before, got 2"),
        ("decode", b"1 2 3 4\n", "stdin, line 1: expected 1 to 3 codes, got 4"),
        ("decode", b"1 2 x\n", "stdin, line 1: expected numbers separated by spaces, got '1 2 x'"),
        ("decode", b"1 2 3\n1 99 3\n", "stdin, frame 2: stream 0: codes: expected 0 .. 15 in codebook 1, got 99"),
        ("decode", b"\1\0\0\0\0\0\0\0{", "not a token file"),
        ("encode", b"RIFF1234WAVE", "got a WAV file"),
        ("encode", b"123", "odd number of bytes"),
    ],
)
def test_bad_input_is_one_line(mimo, monkeypatch, command: str, data: bytes, message: str) -> None:
    give(monkeypatch, data)
    run = mimo(command, "--stream")
    assert run.status == 2
    assert message in run.err
    assert run.err.startswith("mimo-audio: ")
    assert run.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("decode", "--stream", "wav", "a", "b"), "expected no INPUT and OUTPUT, got a"),
        (("decode", "a"), "required: INPUT and OUTPUT, or --stream"),
        (("encode", "a", "b", "--look-ahead", "3"), "--look-ahead: expected with --stream only"),
        (("encode", "--stream", "--look-ahead", "-1"), "invalid number of frames value"),
    ],
)
def test_wrong_usage(mimo, words: tuple[str, ...], message: str) -> None:
    run = mimo(*words)
    assert run.status == 2
    assert message in run.err
