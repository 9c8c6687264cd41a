"""- as a file: standard input and output of the commands that read or write one."""

import io
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mimo_audio.files.tokens import read_tokens


@pytest.fixture
def piped(mimo, ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Calls a command with these bytes on standard input: its run, and the bytes on standard output."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def call(data: bytes, *words: object):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        stdout = io.TextIOWrapper(io.BytesIO())
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            run = (mimo if words[0] in ("encode", "decode", "roundtrip") else ask)(*words)
        assert not list((tmp_path / "temporary").glob("mimo-audio-*"))
        return run, stdout.buffer.getvalue()

    return call


def same(one: Path, other: Path) -> bool:
    """Of token files, whose metadata has no order."""
    a, b = read_tokens(one), read_tokens(other)
    return np.array_equal(a.codes, b.codes) and replace(a, codes=b.codes).__dict__ == b.__dict__


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_sound_to_tokens_to_sound(piped, mimo, tmp_path: Path, speech: np.ndarray, suffix: str) -> None:
    source = tmp_path / f"in.{suffix}"
    soundfile.write(source, speech, 24000)
    assert mimo("encode", source, tmp_path / "a.tokens").status == 0
    assert mimo("decode", tmp_path / "a.tokens", tmp_path / "a.wav").status == 0
    run, tokens = piped(source.read_bytes(), "encode", "-", "-")
    assert (run.status, run.err) == (0, "")
    (tmp_path / "piped.tokens").write_bytes(tokens)
    assert same(tmp_path / "piped.tokens", tmp_path / "a.tokens")
    run, sound = piped(tokens, "decode", "-", "-")
    assert (run.status, run.err) == (0, "")
    assert sound == (tmp_path / "a.wav").read_bytes()


def test_only_one_of_them(piped, wav: Path, tmp_path: Path) -> None:
    run, out = piped(wav.read_bytes(), "encode", "-", tmp_path / "a.tokens")
    assert (run.status, out) == (0, b"")
    run, out = piped(b"", "encode", wav, "-")
    (tmp_path / "b.tokens").write_bytes(out)
    assert same(tmp_path / "a.tokens", tmp_path / "b.tokens")


def test_roundtrip(piped, wav: Path, tmp_path: Path) -> None:
    scores, picture = tmp_path / "s.json", tmp_path / "mels.png"
    run, out = piped(wav.read_bytes(), "roundtrip", "-", "-", "--json", scores, "--plot", picture)
    assert run.status == 0
    assert soundfile.info(io.BytesIO(out)).frames == 48000
    assert run.err.splitlines()[1].startswith("standard input")  # the table, as standard output is taken
    (record,) = json.loads(scores.read_text())["files"]
    assert (record["input"], record["output"]) == ("-", "-")
    assert picture.exists()
    run, out = piped(wav.read_bytes(), "roundtrip", "-", tmp_path / "out.wav")
    assert out.decode().splitlines()[1].startswith("standard input")


def test_speech_to_text(piped, ask, wav: Path) -> None:
    expected = ask("asr", wav, "--max-new", 3).out
    for words in (("-",), ("-", "-")):
        run, out = piped(wav.read_bytes(), "asr", *words, "--max-new", 3)
        assert (run.status, out.decode()) == (0, expected)
    run, out = piped(wav.read_bytes(), "asr", "-", "--max-new", 3, "--json")
    assert json.loads(out)["input"] == "-"


def test_text_to_speech(piped, ask, tmp_path: Path) -> None:
    assert ask("tts", "Hello", "-o", tmp_path / "a.wav", "--max-new", 30).status == 0
    run, out = piped(b"Hello", "tts", "--text-file", "-", "-o", "-", "--max-new", 30)
    assert run.status == 0
    assert out == (tmp_path / "a.wav").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("encode", "-", "-"), "standard input"),
        (("decode", "-", "-"), "standard input: "),
        (("roundtrip", "-", "-"), "standard input"),
        (("encode", "{folder}", "-"), "-: expected a folder, as {folder} is one, got standard output"),
        (("tts", "a", "-o", "-", "--json"), "--json: prints to standard output"),
        (
            ("tts", "--text-file", "-", "--voice", "-", "-o", "a.wav"),
            "text_file and voice: expected standard input once",
        ),
    ],
)
def test_bad_input_is_one_line_and_no_result(piped, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "in").mkdir()
    run, out = piped(b"this is not sound", *(word.format(folder=tmp_path / "in") for word in words))
    assert (run.status, out) == (2, b"")
    assert message.format(folder=tmp_path / "in") in run.err
    assert run.err.count("\n") == 1
    assert "temporary" not in run.err.replace(str(tmp_path / "in"), "")


def test_a_terminal_gets_no_sound(mimo, wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "got a terminal" in mimo("encode", wav, "-").err
