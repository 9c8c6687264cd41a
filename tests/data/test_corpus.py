"""Corpora: `mimo-audio data speak` writes what it says, and goes on after kill -9 as if nothing had been."""

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

from mimo_audio.cli import main
from mimo_audio.data import clips, voices
from mimo_audio.data.clips import Clip, render, tidy
from mimo_audio.data.corpus import plan_speech, read_rows, read_texts, render_corpus
from mimo_audio.data.voices.cast import Cast
from mimo_audio.errors import AudioError
from mimo_audio.files.output import OutputError

TEXTS = ["hello there", "how are you", "unspeakable", "it is late", "see you soon"]


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def plan(count: int = len(TEXTS), seed: int = 0) -> list[Clip]:
    return list(plan_speech(TEXTS[:count], Cast.of(["tones"]), seed, voices_per_text=2))


def test_a_corpus_is_clips_and_their_manifest(tones, tmp_path):
    summary = render_corpus(plan(), tmp_path, 0)
    assert summary.clips == len(rows(tmp_path)) == 8
    assert len(summary.problems) == 2
    assert all("said nothing for 'unspeakable'" in problem for problem in summary.problems)
    assert [row["text"] for row in rows(tmp_path)][:3] == ["hello there", "hello there", "how are you"]
    for row in rows(tmp_path):
        wave, rate = soundfile.read(tmp_path / row["audio"])
        assert rate == 24000
        assert np.abs(wave).max() == pytest.approx(0.6, abs=0.01)
        assert len(wave) / rate == pytest.approx(row["seconds"], abs=1e-3)
        assert len(wave) / rate == pytest.approx(0.05 * len(row["text"]) / row["rate"] + 0.2, abs=0.01)  # trimmed
        assert (row["speaker"], row["language"], row["held_out"]) == (row["speaker"], "en", False)
        assert row["speaker"] in ("tones/bell", "tones/flute")
        assert 0.85 <= row["rate"] <= 1.2
    assert summary.hours * 3600 == pytest.approx(sum(row["seconds"] for row in rows(tmp_path)), abs=0.01)


def test_an_interrupted_corpus_becomes_what_it_would_have_been(tones, tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    render_corpus(plan(), once, 0)

    class Killed(BaseException):
        pass

    def kill(rendered, left=[4]):  # noqa: B006
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    with pytest.raises(Killed):
        render_corpus(plan(), twice, 0, on_clip=kill)
    assert len(rows(twice)) == 4
    with open(twice / "manifest.jsonl", "a") as lines:
        lines.write('{"audio": "audio/ha')  # half a line, as a kill may leave it
    render_corpus(plan(), twice, 0)
    assert files(once) == files(twice)


def test_a_corpus_may_be_continued_with_more_texts_but_not_with_others(tones, tmp_path):
    render_corpus(plan(2), tmp_path, 0)
    before = (tmp_path / "manifest.jsonl").read_bytes()
    with pytest.raises(OutputError, match="holds another corpus"):
        render_corpus(plan(2, seed=1), tmp_path, 0)
    assert (tmp_path / "manifest.jsonl").read_bytes() == before
    render_corpus(plan(), tmp_path, 0)
    assert (tmp_path / "manifest.jsonl").read_bytes().startswith(before)
    assert len(rows(tmp_path)) == 8


def test_hours_end_the_work(tones, tmp_path):
    summary = render_corpus(plan(), tmp_path, 0, hours=1.5 / 3600)
    assert 1.5 / 3600 <= summary.hours < 3 / 3600
    assert summary.clips == len(rows(tmp_path)) < 8


def test_a_clip_is_named_by_all_that_describes_it():
    clip = Clip("a", "tones/bell")
    others = [
        Clip("b", "tones/bell"), Clip("a", "tones/horn"), Clip("a", "tones/bell", 1.1), Clip("a", "tones/bell", 1.0, 1),
        Clip("a", "tones/bell", effects=(("pitch", 1.1),)),
    ]  # fmt: skip
    assert len({c.audio for c in (clip, *others)}) == 6
    assert others[-1].plain == clip


def test_effects_work_on_the_written_clip_whether_it_was_there_or_not(tones, tmp_path):
    clip = Clip("hello", "tones/bell", effects=(("noise", "pink:10"), ("room", 0.3)))
    one, other = tmp_path / "one", tmp_path / "other"
    render(clip, one)
    render(clip.plain, other)
    render(clip, other)
    assert files(one) == files(other)
    assert len(files(one)) == 2


def test_tidy_trims_quiet_and_silence_is_no_error():
    wave = np.zeros(48000, np.float32)
    wave[20000:30000] = 0.1
    assert len(tidy(wave, 24000)) == pytest.approx(10000 + 2 * 2400, abs=2)
    assert np.abs(tidy(wave, 24000)).max() == pytest.approx(0.6)
    assert not tidy(np.zeros(100, np.float32), 24000).any()


def test_texts_of_files_and_manifests(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n\n  Two. \n")
    (tmp_path / "b.jsonl").write_text('{"text": "Three."}\n{"text": "Four.", "audio": "x"}\n')
    assert read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl"]) == ["One.", "Two.", "Three.", "Four."]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, "cannot read"),
        ("a.txt", b"\n \n", "no texts"),
        ("a.txt", b"\xff\xfe", "cannot read"),
        ("a.jsonl", b"{}", '"text"'),
        ("a.jsonl", b'{"text": 5}', '"text"'),
        ("a.jsonl", b"[", '"text"'),
    ],
)
def test_bad_texts_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=message):
        read_texts([tmp_path / name])


def test_a_foreign_manifest_is_named_and_left_alone(tmp_path):
    (tmp_path / "manifest.jsonl").write_text("something else\n")
    with pytest.raises(OutputError, match="a manifest that this command wrote"):
        read_rows(tmp_path / "manifest.jsonl")
    assert (tmp_path / "manifest.jsonl").read_text() == "something else\n"


def test_nothing_said_is_an_error(tones, tmp_path):
    with pytest.raises(AudioError, match="nothing could be said"):
        render_corpus([Clip("unspeakable", "tones/bell")], tmp_path, 0)


def test_a_worker_that_dies_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(clips, "_ignore_interrupt", _die)
    with pytest.raises(AudioError, match="a worker died"):
        render_corpus([Clip("hello", "hibari/heart")], tmp_path, 1)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--voices", "espeak", "--out", "x"], "TEXTS: expected one"),
        (["texts.txt", "--out", "x"], "--voices: expected one"),
        (["texts.txt", "--voices", "espeak"], "--out: expected one"),
        (["texts.txt", "--voices", "organ", "--out", "x"], "expected an engine"),
        (["none.txt", "--voices", "tones", "--out", "x"], "cannot read none.txt"),
        (["texts.txt", "--voices", "tones/horn", "--out", "x"], "no voice that is not held out"),
    ],
)
def test_wrong_use_is_one_line(tones, monkeypatch, tmp_path, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("Hello.\n")
    assert main(["data", "speak", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_list_names_voices_and_marks_those_held_out(tones, capsys):
    assert main(["data", "speak", "--list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "tones/bell" in printed
    assert "tones/horn  (held out)" in printed


def test_kill_9_costs_nothing_that_was_done(tmp_path):
    """The real command with worker processes, killed in the middle and run again, and without interruption."""
    found = voices.installed()[0]
    (tmp_path / "texts.txt").write_text("".join(f"This is sentence number {n}.\n" for n in range(120)))
    command = [sys.executable, "-m", "mimo_audio", "data", "speak", tmp_path / "texts.txt", "--voices", "hibari"]
    command += [name for name in ("espeak", "flite") if name in found] + ["--workers", "2", "--seed", "3", "--out"]
    once, twice = tmp_path / "once", tmp_path / "twice"
    subprocess.run([*command, once], check=True, capture_output=True)
    process = subprocess.Popen([*command, twice], start_new_session=True, stderr=subprocess.DEVNULL)
    manifest = twice / "manifest.jsonl"
    while not manifest.exists() or manifest.read_bytes().count(b"\n") < 20:
        time.sleep(0.01)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(read_rows(manifest)) < 120
    subprocess.run([*command, twice], check=True, capture_output=True)
    kept = {name: content for name, content in files(twice).items() if ".partial" not in name}
    assert kept == files(once)
    assert len(rows(once)) == 120
