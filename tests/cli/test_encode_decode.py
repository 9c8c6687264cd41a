"""encode and decode: right results for every format, rate and channel count, for files and folders."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open

from mimo_audio.files import audio
from mimo_audio.files.tokens import read_tokens
from mimo_audio.tokenizer import AudioTokenizer

FORMATS = ("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64")


def resampled(wave: np.ndarray, rate: int) -> np.ndarray:
    return audio.resample(torch.from_numpy(wave), 24000, rate).numpy()


def test_codes_and_wave_are_the_tokenizers(mimo, wav: Path, model: Path, tmp_path: Path) -> None:
    assert mimo("encode", wav, tmp_path / "a.tokens").status == 0
    assert mimo("decode", tmp_path / "a.tokens", tmp_path / "a.wav").status == 0
    tokenizer = AudioTokenizer.from_pretrained(model)
    wave = torch.from_numpy(soundfile.read(wav, dtype="float32")[0])
    codes = tokenizer.encode(wave)
    assert np.array_equal(read_tokens(tmp_path / "a.tokens").codes, codes.numpy())
    decoded, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    expected = tokenizer.decode(codes)[: len(wave)].clamp(-1, 1 - 2**-15)
    assert (rate, soundfile.info(tmp_path / "a.wav").subtype) == (24000, "PCM_16")
    assert np.allclose(decoded, expected.numpy(), atol=1.01 / 32768)


def test_token_file_describes_itself(mimo, wav: Path, tmp_path: Path) -> None:
    mimo("encode", wav, tmp_path / "a.tokens")
    with safe_open(tmp_path / "a.tokens", "numpy") as file:
        metadata = file.metadata()
        assert file.get_slice("codes").get_shape() == [3, 51]  # 1 + 48000 / 240 mel frames at 100 Hz, 4 per frame
    assert len(metadata.pop("fingerprint")) == 16
    assert metadata == {
        "format": "mimo-audio-tokens", "format_version": "1", "sample_rate": "24000", "frame_rate": "25.0",
        "samples": "48000", "codebook_sizes": "32,16,16", "model": "tiny",
    }  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats(mimo, tmp_path: Path, speech: np.ndarray, suffix: str) -> None:
    source = tmp_path / f"in.{suffix}"
    soundfile.write(source, speech, 24000)
    assert mimo("encode", source, tmp_path / "a.tokens").status == 0
    assert read_tokens(tmp_path / "a.tokens").samples == 48000


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 192000])
def test_sample_rates(mimo, tmp_path: Path, wav: Path, speech: np.ndarray, rate: int) -> None:
    """The result is as long as the recording; above the model's rate nothing that matters changes."""
    soundfile.write(tmp_path / "other.wav", resampled(speech, rate), rate, "FLOAT")
    assert mimo("encode", tmp_path / "other.wav", tmp_path / "a.tokens").status == 0
    tokens = read_tokens(tmp_path / "a.tokens")
    assert abs(tokens.samples - 48000) <= 1
    assert mimo("decode", tmp_path / "a.tokens", tmp_path / "a.wav").status == 0
    assert soundfile.info(tmp_path / "a.wav").frames == tokens.samples


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_averaged(mimo, tmp_path: Path, wav: Path, speech: np.ndarray, channels: int) -> None:
    """A voice with a disturbance that cancels in the mean of the channels gives the voice's codes."""
    hum = np.random.default_rng(0).integers(-8000, 8000, (len(speech), channels // 2)) / 32768
    spread = np.concatenate([speech[:, None] + hum, speech[:, None] - hum], 1)
    soundfile.write(tmp_path / "many.wav", spread, 24000, "FLOAT")
    soundfile.write(tmp_path / "mono.wav", speech, 24000, "FLOAT")
    assert mimo("encode", tmp_path / "many.wav", tmp_path / "many.tokens").status == 0
    assert mimo("encode", tmp_path / "mono.wav", tmp_path / "mono.tokens").status == 0
    many, mono = (read_tokens(tmp_path / f"{name}.tokens").codes for name in ("many", "mono"))
    assert (many == mono).mean() > 0.97  # float32 rounding of the mean may turn a tie


@pytest.mark.parametrize("length", [1, 2, 239, 960, 961, 24001])
def test_any_length_is_kept(mimo, tmp_path: Path, speech: np.ndarray, length: int) -> None:
    soundfile.write(tmp_path / "in.wav", speech[6000 : 6000 + length], 24000)
    assert mimo("encode", tmp_path / "in.wav", tmp_path / "a.tokens").status == 0
    assert mimo("decode", tmp_path / "a.tokens", tmp_path / "a.wav").status == 0
    assert soundfile.info(tmp_path / "a.wav").frames == length


@pytest.mark.parametrize("wave", [np.zeros(24000), np.ones(24000), np.sign(np.sin(np.arange(24000) / 20)) * 3])
def test_silent_and_clipped(mimo, tmp_path: Path, wave: np.ndarray) -> None:
    soundfile.write(tmp_path / "in.wav", wave, 24000, "FLOAT")
    assert mimo("roundtrip", tmp_path / "in.wav", tmp_path / "out.wav").status == 0
    assert soundfile.info(tmp_path / "out.wav").frames == 24000


def test_names_that_are_not_utf8(mimo, wav: Path, tmp_path: Path) -> None:
    """File names are bytes: old recordings have Latin-1 ones; and a line break must not break the table."""
    for name in (os.fsdecode(b"caf\xe9"), "line\nbreak"):
        source = wav.rename(tmp_path / f"{name}.wav")
        assert mimo("encode", source, tmp_path / f"{name}.tokens").status == 0
        assert mimo("decode", tmp_path / f"{name}.tokens", tmp_path / f"{name}.out.wav").status == 0
        run = mimo("roundtrip", source, tmp_path / f"{name}.heard.wav", "--json", tmp_path / f"{name}.json")
        assert run.status == 0
        assert len(run.out.splitlines()) == 2
        source.rename(wav)


def test_first_codebooks(mimo, wav: Path, model: Path, tmp_path: Path) -> None:
    mimo("encode", wav, tmp_path / "all.tokens")
    assert mimo("encode", wav, tmp_path / "two.tokens", "--n-q", 2).status == 0
    everything, two = (read_tokens(tmp_path / f"{name}.tokens") for name in ("all", "two"))
    assert np.array_equal(two.codes, everything.codes[:2])
    assert mimo("decode", tmp_path / "all.tokens", tmp_path / "a.wav", "--n-q", 2).status == 0
    assert mimo("decode", tmp_path / "two.tokens", tmp_path / "b.wav").status == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_flac_out(mimo, wav: Path, tmp_path: Path) -> None:
    mimo("encode", wav, tmp_path / "a.tokens")
    assert mimo("decode", tmp_path / "a.tokens", tmp_path / "a.flac").status == 0
    assert soundfile.info(tmp_path / "a.flac").format == "FLAC"


def test_bfloat16(mimo, wav: Path, tmp_path: Path) -> None:
    """Codebooks stay float32, so tokens travel between precisions."""
    assert mimo("encode", wav, tmp_path / "a.tokens", "--dtype", "bfloat16").status == 0
    assert mimo("decode", tmp_path / "a.tokens", tmp_path / "a.wav").status == 0


def test_folder_keeps_its_structure(mimo, tmp_path: Path, speech: np.ndarray) -> None:
    source = tmp_path / "in"
    (source / "deep" / "er").mkdir(parents=True)
    (source / ".hidden").mkdir()
    for name in ("a.wav", "deep/b.FLAC", "deep/er/c.ogg", ".hidden/d.wav", ".e.wav"):
        soundfile.write(source / name, speech[:4800], 24000)
    (source / "notes.txt").write_text("not sound, not an error")
    assert mimo("encode", source, tmp_path / "tokens").status == 0
    assert files(tmp_path / "tokens") == {"a.tokens", "deep/b.tokens", "deep/er/c.tokens"}
    assert mimo("decode", tmp_path / "tokens", tmp_path / "out").status == 0
    assert files(tmp_path / "out") == {"a.wav", "deep/b.wav", "deep/er/c.wav"}


def test_names_that_differ_in_the_suffix_only(mimo, tmp_path: Path, speech: np.ndarray) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "a.flac", "b.wav"):
        soundfile.write(tmp_path / "in" / name, speech[:4800], 24000)
    assert mimo("encode", tmp_path / "in", tmp_path / "out").status == 0
    assert files(tmp_path / "out") == {"a.wav.tokens", "a.flac.tokens", "b.tokens"}


def test_no_result_overwrites_another(mimo, tmp_path: Path, speech: np.ndarray) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "a.flac", "a.wav.wav"):
        soundfile.write(tmp_path / "in" / name, speech[:4800], 24000)
    assert mimo("encode", tmp_path / "in", tmp_path / "out", "--force").status == 0
    assert files(tmp_path / "out") == {"a.wav.tokens", "a.flac.tokens", "a.wav.wav.tokens"}


def test_results_inside_the_input_folder_are_no_input(mimo, tmp_path: Path, speech: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", speech[:4800], 24000)
    for _ in range(2):
        assert mimo("roundtrip", tmp_path, tmp_path / "out", "--force").status == 0
        assert files(tmp_path / "out") == {"a.wav"}


def test_a_bad_file_does_not_lose_the_others(mimo, tmp_path: Path, speech: np.ndarray) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "c.wav"):
        soundfile.write(tmp_path / "in" / name, speech[:4800], 24000)
    (tmp_path / "in" / "b.wav").write_bytes(b"not sound")
    run = mimo("encode", tmp_path / "in", tmp_path / "out")
    assert run.status == 2
    assert files(tmp_path / "out") == {"a.tokens", "c.tokens"}
    bad, summary = run.err.splitlines()
    assert "b.wav" in bad
    assert summary == "mimo-audio: 1 of 3 files failed"


def test_skip_existing_goes_on_where_it_stopped(mimo, tmp_path: Path, speech: np.ndarray) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.wav", "deep/b.wav", "c.wav"):
        soundfile.write(tmp_path / "in" / name, speech[:4800], 24000)
    for command, source, target, done in (
        ("encode", "in", "tokens", "deep/b.tokens"),
        ("decode", "tokens", "out", "deep/b.wav"),
    ):
        path = tmp_path / target / done
        path.parent.mkdir(parents=True)
        path.write_bytes(b"precious")
        words = (command, tmp_path / source, tmp_path / target)
        assert mimo(*words).status == 2  # as ever
        for other in ("a", "c"):
            (tmp_path / target / other).with_suffix(path.suffix).unlink()
        run = mimo(*words, "--skip-existing")
        assert (run.status, run.err) == (0, "1 of 3 files are there already\n")
        assert path.read_bytes() == b"precious"
        assert files(tmp_path / target) == {f"{name}{path.suffix}" for name in ("a", "deep/b", "c")}
        assert mimo(*words, "--skip-existing", "--quiet").err == ""
        path.unlink()
        assert mimo(*words, "--skip-existing").status == 0
    assert soundfile.info(tmp_path / "out" / "deep" / "b.wav").frames == 4800
    run = mimo("encode", "a", "b", "--skip-existing", "--force")
    assert run.status == 2
    assert "not allowed with" in run.err


def files(folder: Path) -> set[str]:
    """All files in a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
