"""Ctrl-C, SIGTERM and failing writes leave nothing partial behind."""

import os
import signal
from pathlib import Path

import pytest
import soundfile

from mimo_audio.files.output import OutputError, atomic_output
from mimo_audio.lm.patch_decoder import PatchDecoder
from mimo_audio.tokenizer import AudioTokenizer


def raising(error: BaseException):
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("by", ["ctrl-c", "sigterm"])
def test_interrupt_while_decoding(mimo, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """The output was begun: the first block is written when the interrupt comes."""
    assert mimo("encode", wav, tmp_path / "a.tokens").status == 0
    partial_files = []
    decode, calls = AudioTokenizer.decode, []

    def interrupted(self, codes):
        calls.append(codes)
        if len(calls) == 1:
            return decode(self, codes)
        partial_files.extend(tmp_path.glob(".*"))
        os.kill(os.getpid(), signal.SIGINT if by == "ctrl-c" else signal.SIGTERM)
        return decode(self, codes)

    monkeypatch.setattr(AudioTokenizer, "decode", interrupted)
    monkeypatch.setattr("mimo_audio.cli.codec.SEGMENT_CODE_FRAMES", 10)
    run = mimo("decode", tmp_path / "a.tokens", tmp_path / "out.wav")
    assert run.status == 130
    assert run.err == "mimo-audio: interrupted, nothing partial was left behind\n"
    assert len(partial_files) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"in.wav", "a.tokens"}


@pytest.mark.parametrize("by", ["ctrl-c", "sigterm"])
def test_interrupt_while_speaking(ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """The model is at its third patch when the interrupt comes."""
    decode, patches = PatchDecoder.decode, []

    def interrupted(self, *arguments):
        patches.append(decode(self, *arguments))
        if len(patches) == 3:
            os.kill(os.getpid(), signal.SIGINT if by == "ctrl-c" else signal.SIGTERM)
        return patches[-1]

    monkeypatch.setattr(PatchDecoder, "decode", interrupted)
    run = ask("tts", "Hello there", "-o", tmp_path / "out.wav", "--max-seconds", 2)
    assert run.status == 130
    assert run.err == "mimo-audio: interrupted, nothing partial was left behind\n"
    assert list(tmp_path.iterdir()) == []


def test_interrupt_keeps_what_was_there(mimo, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mimo("encode", wav, tmp_path / "a.tokens").status == 0
    (tmp_path / "out.wav").write_bytes(b"precious")
    monkeypatch.setattr(soundfile.SoundFile, "write", raising(KeyboardInterrupt()))
    assert mimo("decode", tmp_path / "a.tokens", tmp_path / "out.wav", "--force").status == 130
    assert (tmp_path / "out.wav").read_bytes() == b"precious"


def test_full_disk(mimo, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", raising(OSError(28, "No space left on device")))
    run = mimo("encode", wav, tmp_path / "a.tokens")
    assert run.status == 2
    assert "No space left on device" in run.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_atomic_output(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with atomic_output(target) as partial:
        partial.write_text("whole")
        assert partial.parent == target.parent
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]
    assert target.read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask()
    with pytest.raises(OutputError, match="--force"), atomic_output(target):
        pass
    fail = raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError), atomic_output(target, force=True) as partial:
        fail(partial.write_text("half"))
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_permissions_are_those_of_any_new_file(model: Path) -> None:
    """safetensors writes files that only their owner may read."""
    for name in ("config.json", "model.safetensors"):
        assert (model / name).stat().st_mode & 0o777 == 0o666 & ~umask()


def test_output_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    with pytest.raises(OutputError, match="--force"), atomic_output(target):
        target.write_text("theirs")
    assert target.read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
