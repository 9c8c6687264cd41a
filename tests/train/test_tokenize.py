"""`mimo-audio data tokenize`: codes as of each recording alone, whatever the workers; it goes on after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio.cli import main
from mimo_audio.data.token_set import TokenSet
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train import tokenize as module
from mimo_audio.train.tokenize import encode_files, tokenize


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Tones of 0.2 to 0.9 s, at two rates, mono and stereo, in WAV and FLAC."""
    lines = []
    for number in range(8):
        rate, name = (24000, 16000)[number % 2], f"{number}.{('wav', 'flac')[number // 4]}"
        time = np.arange(int((0.2 + 0.1 * number) * rate)) / rate
        wave = 0.3 * np.sin(2 * np.pi * 110 * (number + 1) * time)
        soundfile.write(tmp_path / name, np.stack([wave] * (1 + number % 3), 1), rate)
        lines.append({"audio": name, "text": f"tone {number}", "speaker": "sine"})
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_codes_are_those_of_each_recording_alone(manifest, tmp_path):
    done = tokenize([manifest], tmp_path / "set", "nano", 8)
    assert (done.recordings, done.rows, done.failed) == (8, 8, ())
    tokenizer, tokens = AudioTokenizer.from_pretrained("nano"), TokenSet(tmp_path / "set")
    for row in tokens.rows:
        name = json.loads((tmp_path / "set/records.jsonl").read_text().split("\n")[row["audio"]])["audio"]
        wave, rate = soundfile.read(name, dtype="float32", always_2d=True)
        expected = tokenizer.encode(torch.from_numpy(wave.mean(1)), rate)
        assert np.array_equal(tokens.codes(row["audio"]), expected.numpy())
        assert row["text"] == f"tone {Path(name).stem}"


def test_workers_and_batches_change_nothing(manifest, tmp_path, monkeypatch):
    tokenize([manifest], tmp_path / "one", "nano", 8)
    monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(module, "BATCH_SECONDS", 0.5)
    tokenize([manifest], tmp_path / "two", "nano", 8, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_killed_run_goes_on(manifest, tmp_path):
    """Killed between chunks, with a recording per chunk: the same set as without."""
    code = (
        "import sys, time; from pathlib import Path; from mimo_audio.train import tokenize as m; m.CHUNK = 1; "
        "left, encode = iter([0] * 4 + [999]), m.encode_files; "
        "m.encode_files = lambda *a: (time.sleep(next(left)), encode(*a))[1]; "
        "m.tokenize([Path(sys.argv[1])], Path(sys.argv[2]), 'nano', 8)"
    )
    folder = tmp_path / "set"
    process = subprocess.Popen([sys.executable, "-c", code, str(manifest), str(folder)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    index = folder / "codes.idx"
    while not (index.exists() and index.stat().st_size >= 4 * 16):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(TokenSet(folder)) == 4
    done = tokenize([manifest], folder, "nano", 8)
    assert done.recordings == 4
    tokenize([manifest], tmp_path / "whole", "nano", 8)
    assert contents(folder) == contents(tmp_path / "whole")


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(manifest, tmp_path, capsys):
    (tmp_path / "2.wav").unlink()
    (tmp_path / "5.flac").write_bytes(b"no sound")
    soundfile.write(tmp_path / "3.wav", np.array([0.1, float("nan")] * 4000), 24000, subtype="FLOAT")
    command = ["data", "tokenize", str(manifest), "--out", str(tmp_path / "set"), "--workers", "1"]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "5 recordings" in captured.out
    assert [name in captured.err for name in ("2.wav", "3.wav", "5.flac")] == [True] * 3
    assert {row["text"] for row in TokenSet(tmp_path / "set").rows} == {f"tone {n}" for n in (0, 1, 4, 6, 7)}
    for name in ("2.wav", "3.wav"):
        soundfile.write(tmp_path / name, 0.1 * np.ones(5000), 24000)
    assert main(command) == 1  # mended files join in
    assert "2 recordings" in capsys.readouterr().out


def test_a_set_says_what_it_holds_and_whether_it_is_whole(manifest, tmp_path, capsys):
    folder = tmp_path / "set"
    assert main(["data", "tokenize", str(manifest), "--out", str(folder), "--workers", "1"]) == 0
    assert main(["data", "info", str(folder)]) == 0
    assert "8 recordings" in capsys.readouterr().out
    assert main(["data", "verify", str(folder)]) == 0
    assert main(["data", "merge", str(folder), str(folder), "--out", str(tmp_path / "merged")]) == 0
    assert contents(tmp_path / "merged") == contents(folder)
    content = bytearray((folder / "codes.bin").read_bytes())
    content[0] ^= 1
    (folder / "codes.bin").write_bytes(content)
    assert main(["data", "verify", str(folder)]) == 1
    assert "recording 0: checksum differs" in capsys.readouterr().err
    assert main(["data", "merge", str(folder), "--out", str(tmp_path / "again")]) == 2


def test_another_tokenizer_may_not_add_to_a_set(manifest, tmp_path, capsys):
    assert main(["data", "tokenize", str(manifest), "--out", str(tmp_path / "set"), "--n-q", "4"]) == 0
    before = contents(tmp_path / "set")
    assert main(["data", "tokenize", str(manifest), "--out", str(tmp_path / "set")]) == 2
    assert "another tokenizer" in capsys.readouterr().err
    assert contents(tmp_path / "set") == before
    assert main(["data", "tokenize", str(manifest), "--out", str(tmp_path / "new"), "--n-q", "9"]) == 2
    assert "expected 1 to 8 codebooks, got 9" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process by signal")
def test_a_worker_that_dies_is_one_error_and_loses_nothing(manifest, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "CHUNK", 1)
    work = module._work
    monkeypatch.setattr(module, "_work", _die)
    assert main(["data", "tokenize", str(manifest), "--out", str(tmp_path / "set"), "--workers", "2"]) == 2
    assert "a worker process ended" in capsys.readouterr().err
    monkeypatch.setattr(module, "_work", work)
    assert main(["data", "tokenize", str(manifest), "--out", str(tmp_path / "set"), "--workers", "2"]) == 0
    assert len(TokenSet(tmp_path / "set")) == 8


def _die(names):
    os._exit(9)


def test_long_files_are_encoded_as_by_the_codec(tmp_path):
    """Segments of 60 s each alone, as `encode` has it."""
    wave = 0.1 * np.random.default_rng(0).normal(size=70 * 24000).astype(np.float32)
    soundfile.write(tmp_path / "long.flac", wave, 24000)
    tokenizer = AudioTokenizer.from_pretrained("nano")
    (codes,), failed = (list(part.values()) for part in encode_files(tokenizer, [str(tmp_path / "long.flac")], 8))
    assert failed == []
    expected = torch.cat(list(tokenizer.encode_file(tmp_path / "long.flac")), 1)
    assert np.array_equal(codes, expected.numpy())
