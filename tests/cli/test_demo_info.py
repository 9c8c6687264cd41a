"""demo and info."""

import json
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

import mimo_audio
import mimo_audio_native
from mimo_audio.cli.batch import Job, plan
from mimo_audio.files.tokens import read_tokens

from .conftest import LANGUAGE_MODEL

CLIPS = ("sentence", "digits")
KINDS = ("original.wav", "decoded.wav", "tokens", "png")


def test_demo(mimo, tmp_path: Path) -> None:
    run = mimo("demo", "--out", tmp_path / "demo")
    assert (run.status, run.err) == (0, "")
    results = {f"{name}.{kind}" for name in CLIPS for kind in KINDS}
    assert {path.name for path in (tmp_path / "demo").iterdir()} == results
    assert [line.split()[0] for line in run.out.splitlines()[1:3]] == [f"{name}.original.wav" for name in CLIPS]
    assert str(tmp_path / "demo") in run.out
    assert all(result in run.out for result in results)
    for name in CLIPS:
        original, decoded = (
            soundfile.info(tmp_path / "demo" / f"{name}.{kind}.wav") for kind in ("original", "decoded")
        )
        assert original.frames == decoded.frames == read_tokens(tmp_path / "demo" / f"{name}.tokens").samples
        assert imread(tmp_path / "demo" / f"{name}.png").ndim == 3


def test_demo_with_a_recording(mimo, tmp_path: Path) -> None:
    """Of a long recording the first 30 seconds."""
    noise = np.random.default_rng(0).normal(0, 0.1, (31 * 8000, 2))
    soundfile.write(tmp_path / "mine.flac", noise, 8000)
    run = mimo("demo", tmp_path / "mine.flac", "--out", tmp_path / "demo")
    assert run.status == 0
    names = {f"{name}.{kind}" for name in (*CLIPS, "yours") for kind in KINDS}
    assert {path.name for path in (tmp_path / "demo").iterdir()} == names
    assert soundfile.info(tmp_path / "demo" / "yours.decoded.wav").frames == 30 * 24000
    assert [line.split()[0] for line in run.out.splitlines()[1:5]] == [
        "sentence.original.wav",
        "digits.original.wav",
        "yours.original.wav",
        "mean",
    ]


def test_demo_of_nano_speaks_and_listens(mimo, tmp_path: Path) -> None:
    """Words differ from those asked for, as nano is small; their form it has learned."""
    noise = np.random.default_rng(0).normal(0, 0.1, 24000)
    soundfile.write(tmp_path / "mine.wav", noise, 24000)
    run = mimo("demo", tmp_path / "mine.wav", "--out", tmp_path / "demo", "--model", "nano")
    assert run.status == 0
    for name in ("spoken.wav", "spoken-in-a-voice.wav"):
        assert 0.5 < soundfile.info(tmp_path / "demo" / name).duration < 5
        assert f"{name}: Please tell " in run.out
    assert (tmp_path / "demo" / "spoken-in-your-voice.wav").exists()
    heard = [line for line in run.out.splitlines() if line.startswith(("hears that as", "transcribe"))]
    assert len(heard) == 4
    assert sum("Please tell " in line for line in heard) >= 2


def test_demo_does_not_overwrite(mimo, tmp_path: Path) -> None:
    (tmp_path / "digits.png").write_bytes(b"precious")
    run = mimo("demo", "--out", tmp_path)
    assert run.status == 2
    assert "digits.png" in run.err
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]
    assert mimo("demo", "--out", tmp_path, "--force").status == 0


def test_demo_with_a_bad_recording_writes_nothing(mimo, tmp_path: Path) -> None:
    (tmp_path / "mine.wav").write_bytes(b"not sound")
    run = mimo("demo", tmp_path / "mine.wav", "--out", tmp_path / "demo")
    assert run.status == 2
    assert "mine.wav" in run.err
    assert {path.name for path in tmp_path.rglob("*")} <= {"mine.wav", "demo"}


@pytest.mark.parametrize(("clip", "rate", "seconds"), [("sentence", 24000, (5, 8)), ("digits", 8000, (3, 4))])
def test_shipped_clips(clip: str, rate: int, seconds: tuple[float, float]) -> None:
    with as_file(files("mimo_audio") / "assets" / f"{clip}.wav") as path:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (rate, 1, "PCM_16")
        assert seconds[0] < info.duration < seconds[1]
        assert path.stat().st_size < 400_000


def test_info(mimo, model: Path) -> None:
    run = mimo("info", "--model", model)
    assert run.status == 0
    facts = dict(line.split("  ", 1) for line in run.out.splitlines())
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    assert facts["codebooks"] == "32-16-16"
    assert facts["tokens"] == "25 frames/s, 0.33 kbit/s"
    assert facts.keys() >= {"python", "torch", "native version", "gpu", "device used", "parameters", "fingerprint"}


def test_info_of_a_language_model(mimo) -> None:
    run = mimo("info", "--model", LANGUAGE_MODEL)
    assert run.status == 0
    facts = dict(line.split("  ", 1) for line in run.out.splitlines())
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    assert facts["kind"] == "language model"
    assert facts["parameters"] == (
        "0.5 million: backbone 0.1, text embeddings 0.0, text head 0.0, speech embeddings 0.1, patch encoder 0.0, "
        "patch decoder 0.1"
    )
    assert facts["layers"] == "3, patch encoder 2, patch decoder 3"
    assert facts["vocabulary"] == "704 rows, 651 tokens"
    assert facts["context"] == "8192 text tokens and patches, 1311 s of speech"
    assert facts["keys and values"] == "4.8 KB per second of audio in float32, 2.4 KB per second of audio in bfloat16"


def test_info_of_the_released_size_from_its_config_alone(mimo, tmp_path: Path) -> None:
    """By hand: 36 layers x 2 x 8 heads x 128 x 2 bytes x 6.25 positions/s; 512 positions of two pages a stream."""
    config = json.loads((LANGUAGE_MODEL / "config.json").read_text())
    released = {
        **{"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 32},
        **{"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151680, "local_dim": 1024, "local_layers": 16},
        **{"local_attn_heads": 64, "local_ffn_dim": 4096, "input_local_dim": 1024, "input_local_layers": 6},
    }
    (tmp_path / "config.json").write_text(json.dumps(config | released))
    run = mimo("info", "--model", tmp_path)
    assert run.status == 0, run.err
    facts = dict(map(str.strip, line.split("  ", 1)) for line in run.out.splitlines())
    assert facts["keys and values"].endswith("921.6 KB per second of audio in bfloat16")
    assert "no text tokenizer" in facts["vocabulary"]
    weights = 16.0e9  # bfloat16: 36 blocks of 177 million, twice 621 of text, 16 + 6 local blocks of 17
    assert facts["in bfloat16"].startswith(f"{weights / 1e9:.1f} GB of weights; streams in 8 GB: none, 16 GB: none, 24")
    assert facts["in bfloat16"].endswith(f"80 GB: {int((0.9 * 80e9 - weights) / (512 * 147456))}")
    assert facts["in int8"].startswith("8.7 GB")
    assert facts["in int4"].startswith("5.7 GB of weights; streams in 8 GB: ")


def test_plan_of_a_file_is_one_job(wav: Path, tmp_path: Path) -> None:
    assert plan(wav, tmp_path / "x.tokens", {".wav"}, ".tokens") == [Job(wav, tmp_path / "x.tokens")]


def test_version(mimo) -> None:
    run = mimo("--version")
    assert (run.status, run.out, run.err) == (0, f"mimo-audio {mimo_audio.__version__}\n", "")


def test_build_info_of_the_ops_alone() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "mimo_audio_native"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    facts = dict(line.split(": ", 1) for line in run.stdout.splitlines())
    assert facts["cpu isa"] == mimo_audio_native.build_info()["cpu_isa"]
