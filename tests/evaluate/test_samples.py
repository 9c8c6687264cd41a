"""What lines of manifests can test, who may be whose prompt and example, and what is wrong with bad lines."""

import json
from pathlib import Path

import pytest

from mimo_audio.errors import AudioError
from mimo_audio.evaluate.samples import SampleSet, read_set


def written(folder: Path, *rows: dict) -> SampleSet:
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return read_set("set", folder / "manifest.jsonl")


def speech(name: str, text: str, speaker: str) -> dict:
    return {"audio": f"{name}.wav", "text": text, "speaker": speaker}


def pair(name: str, group: str) -> dict:
    return {"input": f"{name}.wav", "audio": f"{name}-after.wav", "text": name, "group": group}


def test_what_a_line_can_test(tmp_path: Path) -> None:
    turns = [{"role": "user", "text": "a?", "audio": "a.wav"}, {"role": "assistant", "text": "b"}]
    samples = written(
        tmp_path,
        {"audio": "a.wav", "text": "x"},
        {"task": "asr", "audio": "a.wav", "text": "x"},
        {"task": "conversion", "input": "a.wav", "audio": "b.wav", "text": "x", "group": "g"},
        {"turns": turns},
        {"task": "text_dialogue", "turns": turns},
        {"task": "understanding", "audio": "a.wav", "question": "q", "answer": "a", "thought": "t"},
        {"task": "caption", "audio": "a.wav", "caption": "noise"},
        {"text": "only words"},
        {"audio": "a.wav"},
    ).samples
    listens = ("transcription", "speaking", "continuation")
    answers = ("answering",)
    assert [one.abilities for one in samples] == [
        listens,
        listens,
        ("conversion",),
        *[answers] * 3,
        (),
        (),
        ("continuation",),
    ]
    assert samples[2].files == {"input": tmp_path / "a.wav", "audio": tmp_path / "b.wav"}
    assert samples[3].turns[0].audio == tmp_path / "a.wav"
    assert samples[6].name == "manifest.jsonl:7"


def test_a_prompt_says_something_else_in_the_same_voice(tmp_path: Path) -> None:
    rows = [speech("a", "x", "ann"), speech("b", "x", "ann"), speech("c", "y", "bob"), speech("d", "z", "ann")]
    samples = written(tmp_path, *rows, {"audio": "e.wav", "text": "w"})
    prompts = [samples.prompt(one) for one in samples.samples]
    assert [path and path.stem for path in prompts] == ["d", "d", None, "a", None]
    others = [[path.stem for path in samples.others(one, 8)] for one in samples.samples]
    assert others == [["c"], ["c"], ["a"], ["c"], ["a", "c"]]
    assert [path.stem for path in samples.others(samples.samples[4], 1)] == ["a"]


def test_examples_are_the_other_pairs_of_the_group(tmp_path: Path) -> None:
    samples = written(tmp_path, pair("a", "g"), pair("x", "h"), pair("b", "g"), pair("c", "g"))
    assert [one.values["text"] for one in samples.of("conversion")] == ["a", "b", "c"]  # x has none
    assert [one.values["text"] for one in samples.examples(samples.samples[2])] == ["c", "a"]


def test_held_out(tmp_path: Path) -> None:
    written(tmp_path, {"audio": "a.wav", "text": "x"}, {"audio": "b.wav", "text": "x", "held_out": True})
    assert [one.name[-1] for one in read_set("set", tmp_path / "manifest.jsonl", held_out=True).samples] == ["2"]
    assert len(read_set("set", tmp_path / "manifest.jsonl").samples) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", r"manifest.jsonl:2: expected a JSON object, got \[1\]"),
        ("{nothing", "manifest.jsonl:2: expected a JSON object"),
        ("[" * 100_000, "manifest.jsonl:2: "),
        ('{"audio": 1, "text": "x"}', "manifest.jsonl:2: audio: expected a string, got 1"),
        ('{"task": "asr", "text": "x"}', "manifest.jsonl:2: speech: expected audio, got no audio"),
        ('{"audio": "a", "input": "b", "text": "x"}', "conversion: expected .* got no group"),
        ('{"task": "understanding", "audio": "a", "question": "q"}', "understanding: expected .* got no answer"),
        ('{"turns": [{"role": "user", "text": "x"}]}', "expected turns with an assistant's answer"),
        ('{"turns": [{"role": "cat", "text": "x"}]}', r'turns\[0\]: expected an object with the "role"'),
        ('{"turns": [{"role": "user"}]}', r"turns\[0\]: expected a text or audio, got"),
        ('{"turns": [{"role": "assistant", "audio": "a"}]}', r"turns\[0\]: expected a text, got"),
        ('{"turns": [{"role": "user", "text": 1}]}', r"turns\[0\].text: expected a string, got 1"),
        ('{"turns": 3}', "turns: expected a list, got 3"),
        ('{"audio": "\\ud800", "text": "x"}', "manifest.jsonl:2: .*surrogate"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"audio": "a.wav", "text": "x"}\n' + line)
    with pytest.raises(AudioError, match=message):
        read_set("set", tmp_path / "manifest.jsonl")


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot read"):
        read_set("set", tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    assert read_set("set", tmp_path / "empty.jsonl").samples == ()
