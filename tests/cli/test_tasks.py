"""tts, asr, understand, continue, convert with small random checkpoints: files, JSON, bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio import MimoAudio
from mimo_audio.cli import main
from mimo_audio.cli.stream import pcm
from mimo_audio.tasks.streams import AudioDelta, TextDelta

from .conftest import LANGUAGE_MODEL, Run


@pytest.fixture
def refuses(ask, tmp_path: Path) -> Callable[..., str]:
    """Runs a task that must fail without a trace, and returns its one line."""

    def check(*words: object) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        run = ask(*words)
        assert (run.status, run.out, run.err.count("\n")) == (2, "", 1)
        assert run.err.startswith("mimo-audio: ")
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return run.err

    return check


def result(run: Run) -> dict:
    """The one JSON object that was printed."""
    assert run.status == 0, run.err
    return json.loads(run.out)


# Speech


def test_tts(ask, whole_model: MimoAudio, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.wav"
    run = ask("tts", "Hello there", "-o", out, "--max-new", 30, "--seed", 3)
    assert (run.status, run.out, run.err) == (0, "", "")
    speech = whole_model.speak("Hello there", max_new=30, seed=3)
    written, rate = soundfile.read(out, dtype="float32")
    assert rate == 24000
    assert np.abs(written - speech.wave.clamp(-1, 1).numpy()).max() < 1e-4


def test_tts_json(ask, whole_model: MimoAudio, tmp_path: Path) -> None:
    record = result(ask("tts", "Hello there", "-o", tmp_path / "out.flac", "--max-seconds", 0.4, "--json"))
    speech = whole_model.speak("Hello there", max_seconds=0.4)
    assert record["output"] == str(tmp_path / "out.flac")
    assert (record["text"], record["duration"], record["ended"]) == (speech.text, 0.48, False)
    assert (record["prompt"], record["text_tokens"], record["patches"]) == (24, speech.stats.text, 3)
    assert record["seconds"] >= record["seconds_generating"] > 0
    assert record["real_time_factor"] == pytest.approx(record["seconds"] / 0.48, abs=0.01)


def test_tts_options(ask, whole_model: MimoAudio, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear 今天", encoding="utf-8")
    few = ("--max-new", 12, "--json")
    voice = whole_model.encode(wav)
    for words, speech in (
        (("--text-file", tmp_path / "letter.txt"), whole_model.speak("Dear 今天", max_new=12)),
        (("Hi", "--voice", wav), whole_model.speak("Hi", voice, max_new=12)),
        (("Hi", "--voice", wav, "--style", "low"), whole_model.speak("Hi", voice, "low", max_new=12)),
        (("Hi", "--freeform"), whole_model.speak("Hi", freeform=True, max_new=12)),
        (("Hi", "--temperature", 0), whole_model.speak("Hi", temperature=0, max_new=12)),
        (("Hi", "--top-k", 2, "--top-p", 0.5), whole_model.speak("Hi", top_k=2, top_p=0.5, max_new=12)),
        (("Hi", "--audio-temperature", 0), whole_model.speak("Hi", audio_temperature=0, max_new=12)),
    ):
        record = result(ask("tts", *words, "-o", tmp_path / "out.wav", "--force", *few))
        assert (record["text"], record.get("thought"), record["patches"]) == (
            speech.text,
            speech.thought,
            speech.stats.patches,
        )
        assert soundfile.info(tmp_path / "out.wav").frames == len(speech.wave)


def test_continue(ask, whole_model: MimoAudio, wav: Path, tmp_path: Path) -> None:
    record = result(ask("continue", wav, "-o", tmp_path / "out.wav", "--seconds", 0.5, "--json"))
    speech = whole_model.extend(wav, 0.5)
    assert (record["duration"], record["prompt"]) == (0.64, speech.stats.prompt)
    assert soundfile.info(tmp_path / "out.wav").frames == len(speech.wave) == 15360


def test_convert(ask, whole_model: MimoAudio, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    other = tmp_path / "sub" / "other.wav"
    soundfile.write(other, soundfile.read(wav)[0][:24000], 24000)
    lines = [{"input": "other.wav", "output": "../in.wav", "text": "It rains."}]
    (tmp_path / "sub" / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    few = ("--max-new", 20, "--json", "--instruction", "Change it")
    expected = whole_model.convert([(other, wav, "It rains.")], other, "Change it", max_new=20)
    for words in (("--example", other, wav, "It rains."), ("--examples", tmp_path / "sub" / "pairs.jsonl")):
        record = result(ask("convert", other, *words, "-o", tmp_path / "out.wav", "--force", *few))
        assert (record["text"], record["prompt"]) == (expected.text, expected.stats.prompt)


# Words


def test_asr(ask, whole_model: MimoAudio, wav: Path, tmp_path: Path) -> None:
    text = whole_model.transcribe(wav, max_new=10)
    printed = ask("asr", wav, "--max-new", 10)
    assert printed.status == 0
    assert printed.out == "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text) + "\n"
    assert ask("asr", wav, tmp_path / "out.txt", "--max-new", 10).out == ""
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == text + "\n"
    record = result(ask("asr", wav, "--max-new", 10, "--json"))
    assert (record["input"], record["text"], record["duration"]) == (str(wav), text, 2.0)
    assert result(ask("asr", wav, "--max-new", 10, "--json", "--language", "zh"))["prompt"] != record["prompt"]


def test_asr_of_a_folder(ask, wav: Path, speech: np.ndarray, tmp_path: Path) -> None:
    """A bad file does not stop the others."""
    folder = tmp_path / "recordings"
    (folder / "deep").mkdir(parents=True)
    soundfile.write(folder / "deep" / "a.flac", speech[:24000], 24000)
    soundfile.write(folder / "b.wav", speech[:12000], 24000)
    (folder / "bad.wav").write_bytes(b"not sound")
    run = ask("asr", folder, tmp_path / "out", "--max-new", 6, "--json")
    assert run.status == 2
    assert "bad.wav" in run.err.splitlines()[0]
    assert "1 of 3 files failed" in run.err
    records = [json.loads(line) for line in run.out.splitlines()]
    assert [record["duration"] for record in records] == [0.5, 1.0]
    for record, name in zip(records, ("b.txt", "deep/a.txt"), strict=True):
        assert record["output"] == str(tmp_path / "out" / name)
        assert (tmp_path / "out" / name).read_text(encoding="utf-8") == record["text"] + "\n"


def test_understand(ask, whole_model: MimoAudio, wav: Path) -> None:
    plain = result(ask("understand", wav, "Who speaks?", "--max-new", 10, "--json"))
    assert plain["text"] == whole_model.understand(wav, "Who speaks?", max_new=10).text
    assert plain["thought"] is None
    run = ask("understand", wav, "Who speaks?", "--max-new", 10, "--thinking")
    answer = whole_model.understand(wav, "Who speaks?", thinking=True, max_new=10)
    assert answer.thought
    assert (len(run.err.strip()), len(run.out.strip())) == (len(answer.thought), len(answer.text))


# Bad input


def test_texts(refuses, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out.wav")
    assert "got neither" in refuses("tts", *out)
    (tmp_path / "text").write_bytes(b"\xff\xfe")
    assert "got both" in refuses("tts", "a", "--text-file", tmp_path / "text", *out)
    assert "cannot read" in refuses("tts", "--text-file", tmp_path / "text", *out)
    assert "nowhere" in refuses("tts", "--text-file", tmp_path / "nowhere", *out)
    assert "expected some text" in refuses("tts", " ", *out)
    assert "surrogate" in refuses("tts", "a \udcff", *out)


def test_recordings(refuses, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not sound")
    soundfile.write(tmp_path / "tiny.wav", np.zeros(1), 192000)
    out = ("-o", tmp_path / "out.wav")
    for name in ("nowhere.wav", "bad.wav", "tiny.wav"):
        path = tmp_path / name
        assert name in refuses("asr", path)
        assert name in refuses("understand", path, "Who?")
        assert name in refuses("tts", "a", "--voice", path, *out)
        assert name in refuses("continue", path, *out)
        assert name in refuses("convert", wav, "--example", path, wav, "b", *out)
    assert "is a folder" in refuses("asr", tmp_path)


def test_limits_and_samplers(refuses, wav: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out.wav")
    assert "max_seconds" in refuses("tts", "a", "--max-seconds", 0, *out)
    assert "top_p" in refuses("tts", "a", "--top-p", 2, *out)
    assert "audio_temperature" in refuses("tts", "a", "--audio-temperature", -1, *out)
    assert "contradicts" in refuses("asr", wav, "--top-k", 5)
    assert "without speech" in refuses("tts", "a", "--max-new", 1, *out)


def test_outputs(refuses, wav: Path, tmp_path: Path) -> None:
    assert "suffix" in refuses("tts", "a", "-o", tmp_path / "out.mp4")
    assert "--force" in refuses("tts", "a", "-o", wav)
    assert "other than the input" in refuses("continue", wav, "-o", wav, "--force")
    assert "other than the input" in refuses("tts", "a", "--voice", wav, "-o", wav, "--force")
    assert "other than the input" in refuses("asr", wav, wav, "--force")


def test_examples(refuses, wav: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out.wav")
    assert "at least one --example" in refuses("convert", wav, *out)
    for line in ("not json", "[1]", '{"input": "a.wav"}', '{"input": 1, "output": "b", "text": "c"}'):
        (tmp_path / "pairs.jsonl").write_text("\n" + line)
        assert "pairs.jsonl, line 2: expected" in refuses("convert", wav, "--examples", tmp_path / "pairs.jsonl", *out)
    assert "nowhere" in refuses("convert", wav, "--examples", tmp_path / "nowhere", *out)


def test_models(mimo, tokenizer: Path, tmp_path: Path) -> None:
    """The folder that is meant is named, or the option that is missing."""
    for words, message in (
        (("--model", LANGUAGE_MODEL), "--tokenizer"),
        (("--model", tmp_path, "--tokenizer", tokenizer), "no language model at"),
        (("--model", tokenizer, "--tokenizer", tokenizer), "expected the config of a language model"),
        (("--model", LANGUAGE_MODEL, "--tokenizer", tmp_path), "no audio tokenizer at"),
    ):
        run = mimo("tts", "a", "-o", tmp_path / "out.wav", *words)
        assert (run.status, run.out, run.err.count("\n")) == (2, "", 1)
        assert message in run.err
    assert list(tmp_path.iterdir()) == []


def test_a_full_context_is_said(mimo, tokenizer: Path, wav: Path, tmp_path: Path) -> None:
    """No limit was given, so the user should know why the answer stops."""
    folder = tmp_path / "lm"
    folder.mkdir()
    for path in LANGUAGE_MODEL.iterdir():
        (folder / path.name).symlink_to(path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    words = ("asr", wav, "--model", folder, "--tokenizer", tokenizer, "--temperature", 0)
    run = mimo(*words)
    assert (run.status, run.err) == (0, "mimo-audio: cut off, the model's context is full\n")
    assert mimo(*words, "--max-new", 3).err == ""


def test_too_long_a_recording(refuses, whole_model: MimoAudio, tmp_path: Path) -> None:
    """It is refused by its header, before anything is computed."""
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 8000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(60 * 8000))
    assert "hour.flac: expected at most 1311 s, which fill the model's context, got 3600 s" in refuses(
        "asr", tmp_path / "hour.flac"
    )


def test_half_precision(ask, tmp_path: Path) -> None:
    record = result(ask("tts", "Hi", "-o", tmp_path / "a.wav", "--dtype", "bfloat16", "--max-new", 20, "--json"))
    assert record["text_tokens"] + record["patches"] == 20
    assert torch.from_numpy(soundfile.read(tmp_path / "a.wav")[0]).isfinite().all()


# Streams


def test_sound_goes_to_stdout_while_it_is_made(
    capfdbinary: pytest.CaptureFixture[bytes], tokenizer: Path, whole_model: MimoAudio, wav: Path
) -> None:
    """The same bytes as the events of the model's stream; the text goes to stderr."""

    def ask_bytes(*words: object) -> tuple[bytes, bytes]:
        assert main([str(word) for word in (*words, "--model", LANGUAGE_MODEL, "--tokenizer", tokenizer)]) == 0
        return capfdbinary.readouterr()

    for words, call in (
        (("tts", "Hello there"), ("speak", "Hello there")),
        (("continue", wav), ("extend", str(wav))),
        (("chat", "Hello there"), ("chat", "Hello there", None, None, True)),
    ):
        out, err = ask_bytes(*words, "--max-new", 40, "--seed", 3, "--stream")
        events = list(whole_model.stream(*call, max_new=40, seed=3))
        wave = torch.cat([event.wave for event in events if isinstance(event, AudioDelta)])
        assert out == pcm(wave)
        wav_out, _ = ask_bytes(*words, "--max-new", 40, "--seed", 3, "--stream", "wav", "--chunks", "throughput")
        assert wav_out[:4] == b"RIFF"
        assert wav_out[44:] == out
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert len(err) >= len(text) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tts", "a"), "expected -o OUTPUT or --stream, got neither"),
        (("tts", "a", "--stream", "-o", "a.wav"), "expected -o OUTPUT or --stream, got both"),
        (("chat", "a", "--stream", "--speech", "x"), "--stream: expected no --speech with it"),
    ],
)
def test_streams_have_no_files(refuses, words, message) -> None:
    assert message in refuses(*words)
