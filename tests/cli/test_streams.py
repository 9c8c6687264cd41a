"""Standard streams that are missing, full or no longer read: one line at most, exit status 2."""

import os
import sys
from pathlib import Path

import pytest


def unread_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(
    ("open_stdout", "message"),
    [(lambda: os.open("/dev/full", os.O_WRONLY), "No space left on device"), (unread_pipe, "Broken pipe")],
)
@pytest.mark.parametrize(
    "words", [("asr", "{wav}", "--max-new", 3), ("asr", "{wav}", "--max-new", 3, "--json"), ("info",)]
)
def test_output_that_cannot_be_written(
    ask, mimo, wav: Path, monkeypatch: pytest.MonkeyPatch, open_stdout, message: str, words: tuple
) -> None:
    words = tuple(str(word).format(wav=wav) for word in words)
    with open(open_stdout(), "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        run = (mimo if words == ("info",) else ask)(*words)
    assert (run.status, run.err) == (2, f"mimo-audio: cannot use standard input or output, {message}\n")


def test_missing_streams(ask, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that was started without them."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", None)
    assert ask("asr", wav, "--max-new", 3).status == 0
    assert ask("chat", "--max-new", 3).status == 0
    assert ask("tts", "Hello", "-o", tmp_path / "out.wav", "--max-new", 30).status == 0
    assert (tmp_path / "out.wav").exists()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
