"""`mimo-audio eval speech`: the random golden model on real voices, a model whose answers are known, bad input."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from mimo_audio import MimoAudio
from mimo_audio.cli import eval_speech
from mimo_audio.errors import GenerationError
from mimo_audio.tasks.results import Answer, Speech, Stats

from .conftest import Run

VOICES = Path(__file__).parents[1] / "golden" / "voices"
ROWS = [json.loads(line) for line in (VOICES / "manifest.jsonl").read_text().splitlines()]
TEXTS = {row["audio"]: row["text"] for row in ROWS}


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A recogniser that knows recordings by their lengths, an encoder that tells long ones from short ones."""
    by_length = {soundfile.info(VOICES / name).frames: text for name, text in TEXTS.items()}
    module = ModuleType("some_judges")
    module.recognise = lambda wave, rate: by_length.get(len(wave), "nothing")
    module.embed = lambda wave, rate: np.array([1.0, len(wave) / rate])
    module.quality = lambda wave, rate: 2 + float(np.abs(wave).max())
    monkeypatch.setitem(sys.modules, "some_judges", module)
    return module


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """All four recordings; pairs from the man's to the woman's; dialogues; a question about a recording."""
    path = {name: str(VOICES / name) for name in TEXTS}
    rows = [{**row, "audio": path[row["audio"]]} for row in ROWS]
    for i in (1, 2):
        one, other = path[f"michael-{i}.ogg"], path[f"isabella-{i}.ogg"]
        for kind in ("voice", "rate"):
            text = TEXTS[f"isabella-{i}.ogg"]
            rows.append({"kind": kind, "group": kind, "input": one, "audio": other, "text": text})
    user = {"role": "user", "text": "What are the 4 factors of 6?", "audio": path["michael-1.ogg"]}
    assistant = {"role": "assistant", "text": "Late 18th century.", "audio": path["isabella-2.ogg"]}
    rows.append({"turns": [user, assistant], "voice": path["isabella-1.ogg"]})
    rows.append(
        {
            "turns": [
                {"role": "user", "audio": path["michael-1.ogg"]},
                {"role": "assistant", "text": "Late 18th century."},
            ]
        }
    )
    rows.append({"audio": path["michael-2.ogg"], "question": "Who speaks?", "answer": "A man."})
    (tmp_path / "held" / "manifest.jsonl").parent.mkdir()
    (tmp_path / "held" / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path / "held" / "manifest.jsonl"


@pytest.fixture
def measure(ask: Callable[..., Run], judges: ModuleType, manifest: Path, tmp_path: Path) -> Callable[..., Run]:
    """Runs the evaluation with those judges."""
    names = (
        "--recogniser",
        "some_judges:recognise",
        "--speaker",
        "some_judges:embed",
        "--quality",
        "some_judges:quality",
    )
    command = ("eval", "speech", "--out", tmp_path / "out", "--device", "cpu", *names)
    return lambda *words, source=manifest: ask(*command, *words, source)


def record_of(folder: Path) -> dict:
    return json.loads((folder / "out" / "scores.json").read_text())


class Perfect(MimoAudio):
    """Answers as the manifest has it, but for what a test changes; `seen` is the file that was encoded last."""

    seen = Path()
    ended = True
    shift = 0.0

    def encode(self, audio, name="audio"):
        if isinstance(audio, Path):
            self.seen = audio
        return super().encode(audio, name)

    def _stats(self) -> Stats:
        return Stats(1, 1, 1, 0.1, self.ended)

    def _speech(self, path: Path) -> Speech:
        wave = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        return Speech(wave, 24000, torch.zeros(8, 4, dtype=torch.int64), TEXTS[path.name], None, self._stats())

    def answer(self, prompt, **options):
        return Answer(TEXTS[self.seen.name], None, None, self._stats())

    def speak(self, text, voice=None, *rest, **options):
        return self._speech(next(VOICES / name for name, said in TEXTS.items() if said == text))

    def convert(self, examples, query, *rest, **options):
        voice = Path(examples[0][1]).stem.split("-")[0]  # who speaks after the change
        return self._speech(VOICES / f"{voice}-{self.seen.stem[-1]}.ogg")

    def extend(self, audio, seconds=None, **options):
        rest = next(
            w for w in (self._speech(VOICES / name).wave for name in TEXTS) if torch.equal(w[: len(audio)], audio)
        )
        return Speech(rest[len(audio) :], 24000, torch.zeros(8, 4, dtype=torch.int64), "", None, self._stats())

    def understand(self, audio, question, thinking=False, **options):
        return Answer("It is a man." if thinking else "A woman.", "hm" if thinking else None, None, self._stats())

    def chat(self, turns, voice=None, system=None, speech=False, thinking=False, **options):
        spoken = self._speech(VOICES / "isabella-2.ogg") if speech else None
        return Answer("Late 18th century", None, spoken, self._stats())


@pytest.fixture
def perfect(whole_model: MimoAudio, monkeypatch: pytest.MonkeyPatch) -> Perfect:
    found = Perfect(whole_model.language_model, whole_model.text_tokenizer, whole_model.audio_tokenizer)
    monkeypatch.setattr(eval_speech.model, "load", lambda *_, **__: found)
    return found


def test_a_random_model_goes_through_everything(measure, tmp_path: Path) -> None:
    run = measure("--limit", 1, "--shots", "0,1")
    assert run.status == 0, run.err
    record = record_of(tmp_path)
    assert record["environment"]["commit"]
    assert (record["model"], record["seed"], record["shots"]) == ("A_lm_s0", 0, [0, 1])
    assert record["parameters"] > 100_000
    assert list(record["scores"]) == ["transcription", "speaking", "conversion", "continuation", "answering"]
    assert list(record["scores"]["conversion"]) == [
        f"held {kind} {shots} shots" for kind in ("voice", "rate") for shots in (0, 1)
    ]
    assert list(record["scores"]["answering"]) == [
        *(f"held {how} question, written answer{more}" for how in ("written", "spoken") for more in ("", ", thinking")),
        "held spoken question, spoken answer by some_judges:recognise",
        "held about sound",
        "held about sound, thinking",
    ]
    for ability in ("transcription", "speaking", "continuation"):
        assert record["scores"][ability]["held"]["items"] == 1
        assert ability in run.out
    assert record["scores"]["speaking"]["held"]["runaways"] == 1
    for item in (*record["items"]["speaking"]["held"], *record["items"]["continuation"]["held"]):
        sound = soundfile.info(tmp_path / "out" / item["output"])
        assert sound.duration == pytest.approx(item["seconds"])
    (item,) = record["items"]["speaking"]["held"]
    assert item["seconds"] <= 3 * item["original seconds"] + 2 + 0.16
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scores.json", "scores.png", "shots.png", "sounds"}
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]
    assert str(tmp_path) not in (tmp_path / "out" / "scores.json").read_text()


def test_a_seed_gives_the_same_answers(measure, tmp_path: Path) -> None:
    words = ("--abilities", "speaking", "--limit", 1, "--force")
    said = []
    for seed in (1, 1, 2):
        measure(*words, "--seed", seed)
        said.append(record_of(tmp_path)["items"])
    assert said[0] == said[1] != said[2]


def test_known_answers(measure, perfect: Perfect, tmp_path: Path) -> None:
    """All is right but answers without thinking about a recording; words, voices and lengths are the originals'."""
    run = measure("--shots", 1)
    assert run.status == 0, run.err
    scores = record_of(tmp_path)["scores"]
    name = "some_judges:recognise"
    listened = scores["transcription"]["held"]
    assert (listened["items"], listened["runaways"], listened["no answer"]) == (4, 0, 0)
    assert (listened["wer"], listened["cer"], listened[f"wer {name}"]) == (0, 0, 0)
    spoken = scores["speaking"]["held"]
    assert (spoken[f"wer {name}"], spoken[f"wer original {name}"], spoken["length ratio"]) == (0, 0, 1)
    assert spoken["similarity"] == pytest.approx(spoken["original similarity"])
    assert spoken["quality"] == pytest.approx(spoken["original quality"], abs=1e-3)
    for kind in ("voice", "rate"):
        changed = scores["conversion"][f"held {kind} 1 shots"]
        assert (changed["distance"], changed[f"wer {name}"]) == (pytest.approx(0, abs=1e-6), 0)
        assert changed["gain"] == pytest.approx(
            changed["distance unchanged"], rel=1e-4
        )  # wrong examples keep the voice
        assert changed["gain"] > 0
        assert changed["length within"] == 1
    assert scores["continuation"]["held"]["length ratio"] == pytest.approx(1, abs=0.01)
    right = {label.removeprefix("held "): row["right"] for label, row in scores["answering"].items()}
    assert right.pop("about sound") == 0
    assert set(right.values()) == {1}
    assert len(right) == 6


def test_answers_that_do_not_end_or_are_none(measure, perfect: Perfect, monkeypatch, tmp_path: Path) -> None:
    perfect.ended = False
    measure("--abilities", "transcription,speaking")
    scores = record_of(tmp_path)["scores"]
    assert [scores[ability]["held"]["runaways"] for ability in ("transcription", "speaking")] == [4, 4]

    limits = []

    def silent(*_, max_seconds, **__):
        limits.append(max_seconds)
        raise GenerationError("the model answered without speech")

    monkeypatch.setattr(perfect, "speak", silent)
    assert measure("--abilities", "speaking", "--force").status == 0
    scores = record_of(tmp_path)["scores"]["speaking"]["held"]
    assert (scores["no answer"], scores["runaways"], scores["wer some_judges:recognise"]) == (4, 0, 1)
    assert (scores["similarity"], scores["quality"], scores["length ratio"]) == (0, 1, 0)
    assert limits == pytest.approx([3 * row["seconds"] + 2 for row in ROWS], abs=0.01)


def test_a_bad_sample_is_left_out(measure, perfect: Perfect, manifest: Path, tmp_path: Path) -> None:
    (manifest.parent / "bad.wav").write_text("not a recording")
    rows = manifest.read_text().splitlines()
    manifest.write_text("\n".join([rows[0], '{"audio": "bad.wav", "text": "x"}', rows[1]]))
    run = measure("--abilities", "transcription")
    assert run.status == 1
    (failure,) = record_of(tmp_path)["failed"]
    assert failure.startswith("manifest.jsonl:2: ")
    assert "bad.wav" in failure
    assert f"left out: {failure}" in run.err
    assert record_of(tmp_path)["scores"]["transcription"]["held"]["items"] == 2


def test_ctrl_c_keeps_what_is_done(measure, perfect: Perfect, monkeypatch, tmp_path: Path) -> None:
    speak, calls = perfect.speak, []

    def interrupted(*words, **options):
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return speak(*words, **options)

    monkeypatch.setattr(perfect, "speak", interrupted)
    run = measure("--abilities", "speaking")
    assert (run.status, record_of(tmp_path)["interrupted"]) == (130, True)
    assert record_of(tmp_path)["scores"]["speaking"]["held"]["items"] == 2


def test_a_manifest_that_tests_nothing_is_named(measure, perfect: Perfect, tmp_path: Path) -> None:
    (tmp_path / "caption.jsonl").write_text('{"task": "caption", "audio": "a.wav", "caption": "noise"}\n')
    run = measure("--abilities", "transcription", tmp_path / "caption.jsonl")
    assert run.status == 0
    assert "nothing here tests any of the abilities: caption" in run.err


def test_bad_input(measure, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"audio": "a.wav", "text": "x"}\n')
    (tmp_path / "broken.jsonl").write_text("{")
    for words, message in (
        ((manifest,), "expected every manifest once"),
        (("--abilities", "conversion"), "other: expected lines that test conversion, got none"),
        (("--held-out",), 'other: expected lines marked as "held_out" that test transcription, speaking'),
        (("--quality", "nowhere:f"), "--quality: cannot find 'nowhere:f' (expected dnsmos or MODULE:FUNCTION)"),
        (("--recogniser", "nowhere"), "--recogniser: cannot find 'nowhere' (expected whisper, pocketsphinx"),
    ):
        run = measure(*words, source=tmp_path / "other.jsonl" if manifest not in words else manifest)
        assert (run.status, run.out) == (2, ""), message
        assert message in run.err
    assert "broken.jsonl:1" in measure(source=tmp_path / "broken.jsonl").err
    assert not (tmp_path / "out").exists()
    assert "invalid list of abilities value: 'singing'" in measure("--abilities", "singing").err
    assert "invalid list of numbers from 0 value: '1,-1'" in measure("--shots=1,-1").err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores.json").write_text("kept")
    assert "--force" in measure().err
    assert (tmp_path / "out" / "scores.json").read_text() == "kept"
