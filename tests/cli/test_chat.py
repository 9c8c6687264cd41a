"""chat: turns as arguments, lines or on a terminal; written and spoken; the transcript."""

import io
import json
from pathlib import Path

import pytest
import soundfile

from mimo_audio import MimoAudio


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch):
    """Puts lines on standard input, of a terminal if asked."""

    def put(text: str, terminal: bool = False) -> None:
        stdin = io.StringIO(text)
        stdin.isatty = lambda: terminal  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", stdin)

    return put


def records(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_one_turn(ask, whole_model: MimoAudio) -> None:
    run = ask("chat", "Hello", "--max-new", 10, "--json")
    assert run.status == 0, run.err
    (record,) = records(run.out)
    answer = whole_model.chat("Hello", max_new=10)
    assert (record["role"], record["text"], record["prompt"]) == ("assistant", answer.text, answer.stats.prompt)
    printed = ask("chat", "Hello", "--max-new", 10)
    assert (printed.status, printed.err, len(printed.out)) == (0, "", len(answer.text) + 1)


def test_turns_build_on_each_other(ask, whole_model: MimoAudio, wav: Path) -> None:
    run = ask("chat", "Hello", wav, "--max-new", 10, "--json")
    first = whole_model.chat("Hello", max_new=10)
    second = whole_model.chat(["Hello", first, wav], max_new=10)
    assert [record["text"] for record in records(run.out)] == [first.text, second.text]
    assert "real_time_factor" not in records(run.out)[0]
    assert "real_time_factor" in records(run.out)[1]


def test_lines_are_turns(ask, say, wav: Path) -> None:
    expected = records(ask("chat", "Hello", wav, "--max-new", 10, "--json").out)
    say(f"Hello\n\n  {wav} \n")
    found = records(ask("chat", "--max-new", 10, "--json").out)
    assert [record["text"] for record in found] == [record["text"] for record in expected]


def test_spoken(ask, whole_model: MimoAudio, wav: Path, tmp_path: Path) -> None:
    folder, words = tmp_path / "answers", ("--voice", wav, "--system", "be brief", "--max-new", 20, "--json")
    run = ask("chat", wav, "Hello", "--speech", folder, *words)
    assert run.status == 0, run.err
    first = whole_model.chat(wav, wav, "be brief", speech=True, max_new=20)
    second = whole_model.chat([wav, first, "Hello"], wav, "be brief", speech=True, max_new=20)
    for number, (record, answer) in enumerate(zip(records(run.out), (first, second), strict=True), 1):
        assert answer.speech is not None
        assert (record["text"], record["duration"]) == (answer.text, round(answer.speech.duration, 3))
        assert record["audio"] == str(folder / f"answer-{number}.wav")
        assert soundfile.info(record["audio"]).frames == len(answer.speech.wave)
    refused = ask("chat", wav, "--speech", folder, *words)
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "answer-1.wav: exists already; --force" in refused.err
    assert ask("chat", wav, "--speech", folder, *words, "--force").status == 0


def test_transcript(ask, wav: Path, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    words = ("chat", "Hello", wav, "--transcript", path, "--thinking", "--max-new", 10)
    run = ask(*words, "--json")
    assert run.status == 0, run.err
    turns = records(path.read_text(encoding="utf-8"))
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    assert (turns[0]["text"], turns[2]["audio"]) == ("Hello", str(wav))
    assert [turn["thought"] for turn in turns[1::2]] == [record["thought"] for record in records(run.out)]
    assert ask(*words).status == 2
    assert ask(*words, "--force").status == 0


def test_a_terminal(ask, say, tmp_path: Path) -> None:
    """A bad turn is reported and the dialogue goes on."""
    say(f"Hello\n{tmp_path / 'nowhere.wav'}\nAgain\n", terminal=True)
    run = ask("chat", "--max-new", 10)
    assert run.status == 0
    assert run.err.count("\n") == 1
    assert "nowhere.wav" in run.err
    expected = ask("chat", "Hello", "Again", "--max-new", 10)
    assert run.out == expected.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.wav",), "no such file: nowhere.wav"),
        (("Hello", "/nowhere/a.mp3"), "no such file: /nowhere/a.mp3"),
        (("",), "expected some text"),
        (("Hello", "--voice", "nowhere.wav"), "nowhere.wav"),
        (("Hello", "--system", "be brief"), "system: expected none without speech"),
        (("Hello", "--speech", "{tmp}/answers", "--thinking"), "thinking: expected False with speech"),
        (("Hello", "--speech", "{tmp}/file"), "not a folder"),
        (("Hello", "--transcript", "{tmp}"), "got a folder"),
    ],
)
def test_bad_input(ask, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "file").write_text("precious")
    run = ask("chat", *(word.format(tmp=tmp_path) for word in words), "--max-new", 5)
    assert (run.status, run.out, run.err.count("\n")) == (2, "", 1)
    assert message in run.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
