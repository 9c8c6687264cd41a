"""asr and tts of folders and files of requests: the same results as one by one, bad ones named, going on."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mimo_audio import MimoAudio


@pytest.fixture
def recordings(tmp_path: Path, speech: np.ndarray) -> Path:
    """deep/a.flac of 1 s, b.wav of 0.5 s, bad.wav that is not sound."""
    folder = tmp_path / "recordings"
    (folder / "deep").mkdir(parents=True)
    soundfile.write(folder / "deep" / "a.flac", speech[:24000], 24000)
    soundfile.write(folder / "b.wav", speech[:12000], 24000)
    (folder / "bad.wav").write_bytes(b"not sound")
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("\n".join(record if isinstance(record, str) else json.dumps(record) for record in records) + "\n\n")
    return path


def test_transcripts_of_a_folder_as_lines(ask, whole_model: MimoAudio, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "heard.jsonl"
    run = ask("asr", recordings, out, "--max-new", 6)
    assert (run.status, run.out) == (2, "")
    assert run.err.splitlines()[0].startswith(f"mimo-audio: cannot read {recordings / 'bad.wav'}: ")
    assert run.err.splitlines()[1] == "mimo-audio: 1 of 3 files failed"
    found = lines(out)
    assert [Path(record["input"]).name for record in found] == ["b.wav", "a.flac"]
    for record in found:
        assert record["text"] == whole_model.transcribe(record["input"], max_new=6)


def test_transcripts_of_a_file_of_requests(ask, whole_model: MimoAudio, recordings: Path, tmp_path: Path) -> None:
    asked = write_lines(
        recordings / "asked.jsonl",
        {"audio": "b.wav", "text": "as it was", "speaker": "anna", "language": "zh"},
        "{not json",
        {"audio": "bad.wav"},
        {"audio": 3},
        {"audio": "b.wav", "language": "fr"},
        {"audio": "deep/a.flac"},
    )
    run = ask("asr", asked, tmp_path / "heard.jsonl", "--max-new", 6)
    assert run.status == 2
    *bad, total = run.err.splitlines()
    assert total == "mimo-audio: 4 of 6 files failed"
    for line, number, message in zip(
        bad, (2, 3, 4, 5), ('expected a JSON object with "audio"', "bad.wav", '"audio", a string', "en or zh, got 'fr'")
    , strict=True):  # fmt: skip
        assert line.startswith(f"mimo-audio: {asked}, line {number}: ")
        assert message in line
    first, second = lines(tmp_path / "heard.jsonl")
    assert first["text"] == whole_model.transcribe(recordings / "b.wav", "zh", max_new=6)
    assert (first["line"], first["reference"], first["speaker"]) == (1, "as it was", "anna")
    assert second["text"] == whole_model.transcribe(recordings / "deep" / "a.flac", max_new=6)
    assert (second["line"], second["input"]) == (6, str(recordings / "deep" / "a.flac"))


def test_transcripts_go_on_where_they_stopped(ask, recordings: Path, tmp_path: Path) -> None:
    (recordings / "bad.wav").unlink()
    out, words = tmp_path / "heard.jsonl", ("--max-new", 6)
    assert ask("asr", recordings, out, *words).status == 0
    whole = lines(out)
    assert "--force" in ask("asr", recordings, out, *words).err
    first = out.read_bytes().splitlines(keepends=True)[0]
    out.write_bytes(first + b'{"input": "half')  # an interrupted line
    run = ask("asr", recordings, out, *words, "--skip-existing")
    assert (run.status, run.err) == (0, "1 of 2 files are there already\n")
    assert out.read_bytes().startswith(first)
    assert [(record["input"], record["text"]) for record in lines(out)] == [(r["input"], r["text"]) for r in whole]
    assert ask("asr", recordings, out, *words, "--force").status == 0
    assert len(lines(out)) == 2
    out.write_text("another thing\n")
    assert "line 1: expected a result" in ask("asr", recordings, out, *words, "--skip-existing").err
    assert out.read_text() == "another thing\n"


def test_a_transcript_that_is_there_is_not_taken_for_another(
    ask, whole_model: MimoAudio, speech: np.ndarray, tmp_path: Path
) -> None:
    folder, out = tmp_path / "recordings", tmp_path / "out"
    for path in (folder, out):
        path.mkdir()
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", speech[6000 * number : 6000 * number + 12000], 24000)
    (out / "1.txt").write_text("there")
    run = ask("asr", folder, out, "--max-new", 6)
    assert run.status == 2
    assert run.err.splitlines()[0].startswith(f"mimo-audio: {out / '1.txt'}: exists already")
    assert (out / "1.txt").read_text() == "there"
    for number in (0, 2, 3):
        text = whole_model.transcribe(folder / f"{number}.wav", max_new=6)
        assert (out / f"{number}.txt").read_text(encoding="utf-8") == text + "\n"


def test_many_transcripts_need_a_place(ask, recordings: Path, tmp_path: Path) -> None:
    asked = write_lines(tmp_path / "asked.jsonl", {"audio": "recordings/b.wav"})
    assert "a file of requests: expected OUTPUT" in ask("asr", asked).err
    assert "other than the input" in ask("asr", asked, asked, "--force").err
    assert lines(asked) == [{"audio": "recordings/b.wav"}]
    assert "expected a JSON object a line" in ask("asr", write_lines(tmp_path / "none.jsonl"), tmp_path / "out").err
    record = {"audio": "recordings/b.wav", "output": "b.wav"}
    run = ask("asr", write_lines(asked, record), recordings, "--force")
    assert "other than the input" in run.err
    assert soundfile.info(recordings / "b.wav").frames == 12000


def test_speech_of_a_file_of_requests(ask, whole_model: MimoAudio, wav: Path, tmp_path: Path) -> None:
    asked = write_lines(
        tmp_path / "asked.jsonl",
        {"text": "One two", "seed": 3},
        {"text": "Three", "output": "deep/three.flac", "style": "slowly", "note": "kept"},
        {"text": "Four", "voice": wav.name},
        {"text": "Five", "freeform": True},
        {"text": "Six", "output": "../six.wav"},
        {"text": "Seven", "output": "deep/three.flac"},
        {"text": " "},
        {"text": "Nine", "seed": "nine"},
        {"text": "Ten", "voice": "nowhere.wav"},
        {"text": "Eleven", "output": "eleven.txt"},
    )
    out = tmp_path / "spoken"
    run = ask("tts", "--text-file", asked, "-o", out, "--max-new", 12, "--json")
    assert run.status == 2
    *bad, total = run.err.splitlines()
    assert total == "mimo-audio: 6 of 10 files failed"
    messages = (
        "output: expected a name inside",
        "output: expected another than that of line 2",
        "expected some text",
        "seed: expected a int, got 'nine'",
        "nowhere.wav",
        "suffix",
    )
    for line, number, message in zip(bad, range(5, 11), messages, strict=True):
        assert line.startswith(f"mimo-audio: {asked}, line {number}: "), line
        assert message in line
    records = [json.loads(line) for line in run.out.splitlines()]
    assert [record["line"] for record in records] == [1, 2, 3, 4]
    assert records[1]["note"] == "kept"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        *("01.wav", "03.wav", "04.wav", "deep/three.flac")
    ]
    for record, arguments, options in zip(
        records,
        (("One two",), ("Three", None, "slowly"), ("Four", wav), ("Five", None, None, True)),
        ({"seed": 3}, {}, {}, {}),
        strict=True,
    ):
        speech = whole_model.speak(*arguments, max_new=12, **options)
        written = soundfile.read(record["output"], dtype="float32")[0]
        assert np.abs(written - speech.wave.clamp(-1, 1).numpy()).max() < 1e-4


def test_speech_of_a_folder_of_texts(ask, whole_model: MimoAudio, tmp_path: Path) -> None:
    folder, out = tmp_path / "texts", tmp_path / "spoken"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("Hello there")
    (folder / "deep" / "b.txt").write_text("Good night")
    (folder / "bad.txt").write_bytes(b"\xff\xfe\xff")
    words = ("tts", "--text-file", folder, "-o", out, "--max-new", 12)
    run = ask(*words, "--style", "slowly")
    assert run.status == 2
    assert f"cannot read {folder / 'bad.txt'}" in run.err.splitlines()[0]
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    assert set(made) == {out / "a.wav", out / "deep" / "b.wav"}
    speech = whole_model.speak("Good night", style="slowly", max_new=12)
    assert np.abs(soundfile.read(out / "deep" / "b.wav")[0] - speech.wave.clamp(-1, 1).numpy()).max() < 1e-4
    (out / "a.wav").unlink()
    (folder / "bad.txt").unlink()
    assert ask(*words, "--skip-existing").status == 0
    assert (out / "a.wav").exists()
    assert (out / "deep" / "b.wav").stat().st_mtime_ns == made[out / "deep" / "b.wav"]
    for other in (("--stream",), ("-o", "-")):
        assert "holds many texts: expected -o OUTPUT" in ask(*words[:3], *other).err


def test_one_text_that_is_spoken_already(ask, tmp_path: Path) -> None:
    words = ("tts", "Hello there", "-o", tmp_path / "a.wav", "--max-new", 12)
    assert ask(*words).status == 0
    before = (tmp_path / "a.wav").stat().st_mtime_ns
    run = ask(*words, "--skip-existing")
    assert (run.status, run.err) == (0, "1 of 1 files are there already\n")
    assert (tmp_path / "a.wav").stat().st_mtime_ns == before
