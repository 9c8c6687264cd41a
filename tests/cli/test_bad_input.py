"""Bad input: one clear line on stderr, exit status 2, no traceback, and the folder is as it was."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_torch_file
from safetensors.torch import save_file as save_torch_file

from mimo_audio.errors import MimoError
from mimo_audio.files.tokens import Tokens, read_tokens, write_tokens


@pytest.fixture
def refuses(mimo, tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must fail without a trace, and returns its one line."""

    def check(*words: object) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        run = mimo(*words)
        assert run.status == 2
        assert run.out == ""
        assert run.err.startswith("mimo-audio: ")
        assert run.err.count("\n") == 1
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return run.err

    return check


@pytest.fixture
def tokens(mimo, wav: Path, tmp_path: Path) -> Path:
    mimo("encode", wav, tmp_path / "good.tokens")
    return tmp_path / "good.tokens"


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Audio


@pytest.mark.parametrize("command", ["encode", "roundtrip"])
@pytest.mark.parametrize(
    ("name", "data"),
    [("empty.wav", b""), ("text.wav", b"this is not sound" * 50), ("header.wav", b"RIFF\x24\x00\x00\x00WAVEfmt "),
     ("text.mp3", b"this is not sound either" * 50), ("no-header.raw", b"\x01\x02" * 1000), ("none", b"\x00" * 1000)],
)  # fmt: skip
def test_no_audio(refuses, tmp_path: Path, command: str, name: str, data: bytes) -> None:
    source = write_bytes(tmp_path / name, data)
    assert name in refuses(command, source, tmp_path / "out.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "au", "caf"])
def test_truncated_audio(refuses, tmp_path: Path, speech: np.ndarray, suffix: str) -> None:
    source = tmp_path / f"in.{suffix}"
    soundfile.write(source, speech, 24000)
    write_bytes(source, source.read_bytes()[: source.stat().st_size // 2])
    assert source.name in refuses("encode", source, tmp_path / "out.tokens")


def test_wav_from_a_pipe_is_not_truncated(mimo, tmp_path: Path, wav: Path) -> None:
    """Programs that write to a pipe cannot know the length and put the largest number there."""
    data = bytearray(wav.read_bytes())
    for field in (4, data.index(b"data") + 4):
        data[field : field + 4] = b"\xff\xff\xff\xff"
    assert mimo("encode", write_bytes(tmp_path / "pipe.wav", bytes(data)), tmp_path / "pipe.tokens").status == 0
    assert mimo("encode", wav, tmp_path / "wav.tokens").status == 0
    assert np.array_equal(*(read_tokens(tmp_path / f"{name}.tokens").codes for name in ("pipe", "wav")))


def test_no_samples(refuses, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(0), 24000)
    assert "no samples" in refuses("encode", tmp_path / "in.wav", tmp_path / "out.tokens")


def test_no_sample_left(refuses, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(1), 192000)
    assert "at least one sample" in refuses("encode", tmp_path / "in.wav", tmp_path / "out.tokens")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(refuses, tmp_path: Path, speech: np.ndarray, value: float) -> None:
    wave = speech.copy()
    wave[-1] = value
    soundfile.write(tmp_path / "in.wav", wave, 24000, "FLOAT")
    assert "NaN or infinity" in refuses("encode", tmp_path / "in.wav", tmp_path / "out.tokens")


def test_far_too_loud(refuses, tmp_path: Path, speech: np.ndarray) -> None:
    """Finite samples whose features are not."""
    soundfile.write(tmp_path / "in.wav", speech * 1e38, 24000, "FLOAT")
    assert "in.wav" in refuses("encode", tmp_path / "in.wav", tmp_path / "out.tokens")


@pytest.mark.parametrize("suffix", ["w64", "rf64"])
def test_truncated_large_file_formats(refuses, tmp_path: Path, speech: np.ndarray, suffix: str) -> None:
    source = tmp_path / f"in.{suffix}"
    soundfile.write(source, speech, 24000)
    write_bytes(source, source.read_bytes()[: source.stat().st_size // 2])
    assert "truncated" in refuses("encode", source, tmp_path / "out.tokens")


def test_no_such_input(refuses, tmp_path: Path) -> None:
    for command in ("encode", "decode", "roundtrip"):
        assert "nowhere" in refuses(command, tmp_path / "nowhere", tmp_path / "out.wav")
    assert "nowhere" in refuses("demo", tmp_path / "nowhere", "--out", tmp_path / "demo")


def test_nothing_in_the_folder(refuses, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing to hear")
    assert "no files" in refuses("encode", tmp_path / "in", tmp_path / "out")


# Token files


def test_tokens_of_another_model(refuses, tokens: Path, other_model: Path, tmp_path: Path) -> None:
    line = refuses("decode", tokens, tmp_path / "out.wav", "--model", other_model)
    assert "another tokenizer (tiny)" in line
    assert read_tokens(tokens).fingerprint in line


def test_another_number_of_codebooks(refuses, tokens: Path, tmp_path: Path) -> None:
    good = read_tokens(tokens)
    bad = tmp_path / "bad.tokens"
    write_tokens(bad, Tokens(**{**vars(good), "codebook_sizes": (32, 16, 16, 16)}))
    assert "4 codebooks, expected 3" in refuses("decode", bad, tmp_path / "out.wav")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"codes": np.zeros((4, 51))}, "got 4"), ({"codes": np.zeros((0, 51))}, "got 0"),
     ({"codes": np.zeros(51)}, "[51]"),
     ({"codes": np.full((3, 51), 16)}, "codebook 1: expected codes below 16, got 16"),
     ({"codes": np.full((1, 51), 65535)}, "codebook 0: expected codes below 32, got 65535"),
     ({"codes": np.zeros((3, 0))}, "48000 samples"), ({"codes": np.zeros((3, 20))}, "48000 samples"),
     ({"samples": 0}, "0 samples"), ({"samples": -5}, "-5 samples"), ({"samples": 10**18}, "samples"),
     ({"samples": "many"}, "metadata"), ({"sample_rate": 0}, "0 Hz"), ({"frame_rate": float("nan")}, "nan"),
     ({"frame_rate": 0.0}, "0.0 Hz"), ({"codebook_sizes": ()}, "metadata"), ({"codebook_sizes": (-1,)}, "codebook"),
     ({"samples": 10**400}, "too large"), ({"sample_rate": 10**400}, "too large"),
     ({"fingerprint": "x" * 10**5}, "16 hexadecimal digits"),
     ({"sample_rate": 48000, "samples": 96000}, "25 frames per second at 48000 Hz, expected 25 at 24000 Hz")],
)  # fmt: skip
def test_damaged_tokens(refuses, tokens: Path, tmp_path: Path, change: dict, message: str) -> None:
    bad = tmp_path / "bad.tokens"
    write_tokens(bad, Tokens(**{**vars(read_tokens(tokens)), **change}))
    line = refuses("decode", bad, tmp_path / "out.wav")
    assert str(bad) in line
    assert message in line


@pytest.mark.parametrize("fraction", [0, 0.001, 0.3, 0.999])
def test_truncated_tokens(refuses, tokens: Path, tmp_path: Path, fraction: float) -> None:
    data = tokens.read_bytes()
    bad = write_bytes(tmp_path / "bad.tokens", data[: int(len(data) * fraction)])
    assert "not a token file" in refuses("decode", bad, tmp_path / "out.wav")


def test_no_token_file(refuses, wav: Path, model: Path, tmp_path: Path) -> None:
    assert "not a token file" in refuses("decode", wav, tmp_path / "out.wav")
    assert "not a token file" in refuses("decode", model / "model.safetensors", tmp_path / "out.wav")


def test_tokens_without_codes_or_of_another_type(refuses, tokens: Path, tmp_path: Path) -> None:
    header = json.loads(tokens.read_bytes()[8:].split(b"}}")[0] + b"}}")["__metadata__"]
    good, bad = read_tokens(tokens).codes, tmp_path / "bad.tokens"
    save_file({"other": good}, bad, header)
    refuses("decode", bad, tmp_path / "out.wav")
    save_file({"codes": good.astype(np.float32)}, bad, header)
    assert "F32" in refuses("decode", bad, tmp_path / "out.wav")
    save_torch_file({"codes": torch.from_numpy(good.astype(np.float32)).bfloat16()}, bad, header)  # no NumPy type
    assert "BF16" in refuses("decode", bad, tmp_path / "out.wav")
    save_file({"codes": good}, bad, {**header, "format_version": "2"})
    assert "version 2" in refuses("decode", bad, tmp_path / "out.wav")
    del header["samples"]
    save_file({"codes": good}, bad, header)
    assert "samples" in refuses("decode", bad, tmp_path / "out.wav")


def test_a_hostile_name_cannot_break_the_line(refuses, tokens: Path, other_model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tokens"
    write_tokens(bad, Tokens(**{**vars(read_tokens(tokens)), "model": "a\nb\x1b[2Jc"}))
    assert "\x1b" not in refuses("decode", bad, tmp_path / "out.wav", "--model", other_model)


def test_more_codebooks_than_there_are(refuses, mimo, wav: Path, tmp_path: Path) -> None:
    assert "3 codebooks" in refuses("encode", wav, tmp_path / "out.tokens", "--n-q", 4)
    mimo("encode", wav, tmp_path / "two.tokens", "--n-q", 2)
    assert "2 codebooks" in refuses("decode", tmp_path / "two.tokens", tmp_path / "out.wav", "--n-q", 3)


# Outputs


def test_nothing_is_overwritten_without_force(mimo, refuses, wav: Path, tokens: Path, tmp_path: Path) -> None:
    taken = write_bytes(tmp_path / "taken.wav", b"precious")
    assert "--force" in refuses("decode", tokens, taken)
    assert "--force" in refuses("encode", wav, taken)
    assert "--force" in refuses("roundtrip", wav, taken)
    assert "--force" in refuses("roundtrip", wav, tmp_path / "out.wav", "--json", taken)
    taken_png = write_bytes(tmp_path / "taken.png", b"precious")
    assert "--force" in refuses("roundtrip", wav, tmp_path / "out.wav", "--plot", taken_png)
    assert mimo("decode", tokens, taken, "--force").status == 0
    assert soundfile.info(taken).frames == 48000


def test_results_in_a_folder_are_not_overwritten_without_force(mimo, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    wav.rename(tmp_path / "in" / "a.wav")
    assert mimo("encode", tmp_path / "in", tmp_path / "out").status == 0
    assert mimo("encode", tmp_path / "in", tmp_path / "out").status == 2
    assert mimo("encode", tmp_path / "in", tmp_path / "out", "--force").status == 0


def test_the_input_is_never_the_output(refuses, wav: Path) -> None:
    assert "other than the input" in refuses("roundtrip", wav, wav, "--force")


@pytest.mark.parametrize("suffix", [".xyz", "", ".m4a", ".png"])
def test_unknown_output_format(refuses, wav: Path, tokens: Path, tmp_path: Path, suffix: str) -> None:
    assert ".wav, .flac" in refuses("decode", tokens, tmp_path / f"out{suffix}")
    assert ".wav, .flac" in refuses("roundtrip", wav, tmp_path / f"out{suffix}")


def test_picture_without_png(refuses, wav: Path, tmp_path: Path) -> None:
    assert ".png" in refuses("roundtrip", wav, tmp_path / "out.wav", "--plot", tmp_path / "mels.gif")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_scores_and_picture_are_files_of_their_own(refuses, wav: Path, tmp_path: Path, option: str) -> None:
    for path in (wav, tmp_path / "out.wav"):
        assert option in refuses("roundtrip", wav, tmp_path / "out.wav", option, path, "--force")
    same = tmp_path / "same.png"
    assert "once more" in refuses("roundtrip", wav, tmp_path / "out.wav", "--json", same, "--plot", same, "--force")


def test_a_device_is_never_replaced(refuses, wav: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tokens")
    assert "device or pipe" in refuses("encode", wav, tmp_path / "pipe.tokens", "--force")
    assert (tmp_path / "pipe.tokens").is_fifo()


def test_too_long_a_name(refuses, wav: Path, tmp_path: Path) -> None:
    name = "x" * 300
    for command in ("encode", "roundtrip"):
        assert "too long" in refuses(command, wav, tmp_path / f"{name}.wav")
        assert "no such file" in refuses(command, tmp_path / name, tmp_path / "out.wav")
    assert "no tokenizer" in refuses("encode", wav, tmp_path / "out.tokens", "--model", tmp_path / name)


def test_unwritable_output(refuses, wav: Path, tokens: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert "is not a folder" in refuses("encode", wav, tmp_path / "file" / "out.tokens")
    assert "got a folder" in refuses("encode", wav, tmp_path / "folder")
    assert "expected a folder" in refuses("encode", tmp_path, tmp_path / "file")
    assert "cannot write" in refuses("decode", tokens, Path("/proc/out.wav"))  # root may write anywhere but here


# Models


def test_no_model(refuses, wav: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        assert "no tokenizer" in refuses("encode", wav, tmp_path / "out.tokens", "--model", folder)
    (tmp_path / "broken").mkdir()
    write_bytes(tmp_path / "broken" / "config.json", b"{}")
    write_bytes(tmp_path / "broken" / "model.safetensors", b"")
    assert "config.json" in refuses("encode", wav, tmp_path / "out.tokens", "--model", tmp_path / "broken")


def test_truncated_model(refuses, wav: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    write_bytes(tmp_path / "cut" / "config.json", (model / "config.json").read_bytes())
    write_bytes(tmp_path / "cut" / "model.safetensors", (model / "model.safetensors").read_bytes()[:-100])
    assert "model.safetensors" in refuses("encode", wav, tmp_path / "out.tokens", "--model", tmp_path / "cut")


def test_codebooks_that_are_not_finite(refuses, wav: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "nan").mkdir()
    write_bytes(tmp_path / "nan" / "config.json", (model / "config.json").read_bytes())
    tensors = load_torch_file(model / "model.safetensors")
    tensors["encoder.quantizer.vq.layers.1._codebook.embed"][3] = float("nan")
    save_torch_file(tensors, tmp_path / "nan" / "model.safetensors")
    assert "finite codebooks" in refuses("encode", wav, tmp_path / "out.tokens", "--model", tmp_path / "nan")


@pytest.mark.parametrize(
    ("text", "message"), [("[" * 100_000, "nested too deeply"), ("\ufeff{}", "BOM")], ids=["nested", "byte-order-mark"]
)
def test_hostile_config(refuses, wav: Path, model: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "hostile").mkdir()
    write_bytes(tmp_path / "hostile" / "config.json", text.encode())
    write_bytes(tmp_path / "hostile" / "model.safetensors", (model / "model.safetensors").read_bytes())
    assert message in refuses("encode", wav, tmp_path / "out.tokens", "--model", tmp_path / "hostile")


@pytest.mark.parametrize("name", ["d_model", "encoder_layers", "num_quantizers", "nfft", "kernel_size"])
def test_huge_sizes(refuses, wav: Path, model: Path, tmp_path: Path, name: str) -> None:
    """Refused before anything of that size is built."""
    (tmp_path / "huge").mkdir()
    config = {**json.loads((model / "config.json").read_text()), name: 10**9}
    write_bytes(tmp_path / "huge" / "config.json", json.dumps(config).encode())
    write_bytes(tmp_path / "huge" / "model.safetensors", (model / "model.safetensors").read_bytes())
    line = refuses("encode", wav, tmp_path / "out.tokens", "--model", tmp_path / "huge")
    assert f"{name} must be" in line


def test_no_gpu(refuses, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "device cuda: torch finds no GPU" in refuses("encode", wav, tmp_path / "out.tokens", "--device", "cuda")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "mimo-audio: out of memory (MemoryError)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nmore"), "mimo-audio: out of memory (Def"),
        (ModuleNotFoundError("No module", name="numpy"), "mimo-audio: needs the package numpy: pip install numpy"),
        (PermissionError(13, "Permission denied", "/x/y"), "mimo-audio: /x/y: Permission denied"),
        (MimoError("a" * 100_000), "mimo-audio: aaa"),
    ],
)
def test_what_no_command_foresees_is_one_line_too(mimo, monkeypatch, error: Exception, message: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("mimo_audio.cli.info.run", fail)
    run = mimo("info")
    assert (run.status, run.out) == (2, "")
    assert run.err.startswith(message)
    assert run.err.count("\n") == 1
    assert len(run.err) < 1200


def test_a_bug_is_not_hidden(mimo, monkeypatch) -> None:
    monkeypatch.setattr("mimo_audio.cli.info.run", lambda _: [][0])
    with pytest.raises(IndexError):
        mimo("info")
