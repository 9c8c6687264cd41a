"""The world: right answers to its questions, nothing held out in training, the same files from the same seed."""

import datetime
import json
import random
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mimo_audio.cli import main
from mimo_audio.data.clips import Clip, render
from mimo_audio.data.manifest import read_manifest
from mimo_audio.data.voices import VoiceError, is_held_out
from mimo_audio.data.voices.cast import Cast, speaker
from mimo_audio.data.world import build as building
from mimo_audio.data.world import descriptions, questions, texts
from mimo_audio.data.world.build import SPLITS, Settings, build, read_speech
from mimo_audio.data.world.plan import GROUP, SHARES, TASKS, World, clips_in
from mimo_audio.errors import AudioError
from mimo_audio.files.output import OutputError
from mimo_audio.pitch import track_f0
from mimo_audio.train.lm_data import tasks_of

SENTENCES = [
    f"the {adjective} {noun} is {place}"
    for adjective in ("old", "new", "small", "red", "blue")
    for noun in ("house", "tree", "book", "boat", "coat")
    for place in ("here", "there", "near", "far")
]
EXCHANGES = [(f"Do you like {thing}?", f"Yes, I like {thing}.") for thing in "tea milk bread cake fish rice".split()]
SETTINGS = Settings(hours=0.004, held_out=4, voices=("tones",), seed=4)


@pytest.fixture
def small(tones, monkeypatch) -> None:
    """Everyday texts that are always there."""
    monkeypatch.setattr(building, "everyday", lambda: (SENTENCES, EXCHANGES))


def world(held_out: bool = False, seed: int = 0) -> World:
    cast = Cast.of(["tones"], held_out=held_out)
    return World("held_out_voices" if held_out else "train", SENTENCES, EXCHANGES, cast, held_out, seed)


def rows(folder: Path, split: str, task: str) -> list[dict]:
    return [json.loads(line) for line in (folder / split / f"{task}.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
UNITS = {w: n for n, w in enumerate(f"zero one two three four five six seven eight nine {TEENS}".split())}
TENS = {w: 10 * n for n, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}


def value(words: str) -> int:
    """The number that words say, by adding up: another way round than number_words."""
    total = 0
    for word in words.lower().split():
        total = total * 100 if word == "hundred" else total + (0 if word == "and" else {**UNITS, **TENS}[word])
    return total


def test_number_words():
    assert [value(texts.number_words(number)) for number in range(1000)] == list(range(1000))
    assert texts.number_words(342) == "three hundred and forty two"


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "first"), (2, "second"), (3, "third"), (4, "fourth"), (5, "fifth"), (8, "eighth"), (9, "ninth"),
     (12, "twelfth"), (15, "fifteenth"), (20, "twentieth"), (22, "twenty second"), (30, "thirtieth"),
     (31, "thirty first")],
)  # fmt: skip
def test_ordinal_words(number, words):
    assert texts.ordinal_words(number) == words


def test_arithmetic_is_right():
    rng, seen = random.Random(0), 0
    for _ in range(3000):
        asked = questions.question(rng)
        match = re.search(r"([a-z ]+?) (plus|minus|times) ([a-z ]+?)(?: is)?\?$", asked.text)
        if match:
            left = re.sub(r".*\b(is|much is|what)\b ", "", match[1])
            a, b, answer = value(left), value(match[3]), value(asked.answer[6:-1])
            assert answer == {"plus": a + b, "minus": a - b, "times": a * b}[match[2]]
            left_side, _, right_side = asked.thought.rstrip(".").partition(" = ")
            assert eval(left_side) == int(right_side) == answer
            seen += 1
    assert seen > 200


def test_days_months_and_the_larger_number_are_right():
    rng, seen = random.Random(1), set()
    steps = {"the day before": -1, "the day after": 1, "two days after": 2, "three days after": 3}
    start = datetime.date(2024, 1, 1)
    by_day = {(start + datetime.timedelta(n)).strftime("%A"): n for n in range(7)}
    by_month = {datetime.date(2024, n, 1).strftime("%B"): n for n in range(1, 13)}
    for _ in range(3000):
        asked = questions.question(rng)
        if match := re.search(r"(the day before|the day after|two days after|three days after) (\w+)\?", asked.text):
            day = start + datetime.timedelta(by_day[match[2]] + steps[match[1]])
            assert asked.answer == f"It is {day:%A}."
        elif match := re.search(r"which month comes (before|after) (\w+)\?", asked.text, re.I):
            month = (by_month[match[2]] - 1 + (1 if match[1] == "after" else -1)) % 12 + 1
            assert asked.answer == f"It is {datetime.date(2024, month, 1):%B}."
        elif match := re.search(r"which number is (larger|smaller), (.+) or (.+)\?", asked.text, re.I):
            best = {"larger": max, "smaller": min}[match[1]](value(match[2]), value(match[3]))
            assert value(asked.answer.rstrip(".")) == best
        else:
            continue
        seen.add(match.re.pattern)
    assert len(seen) == 3


def test_sentences_are_those_of_common_words():
    found = ["the cat is here"] * 3 + [f"the cat is {w}" for w in ("here", "there", "odd")]
    found += ["the dog is here - ", "the dog is there", "a b", "the cat is here at murder", "the cat is hère"]
    assert texts.common_sentences(found, common=2) == [
        "The cat is here.", "The cat is there.", "The dog is here.", "The dog is there.",
    ]  # fmt: skip


def test_the_grammar_is_small_and_varied():
    rng = random.Random(0)
    drawn = [texts.grammar_sentence(rng) for _ in range(5000)]
    assert len(set(drawn)) > 2000
    words = {word for text in drawn for word in re.findall(r"[a-z']+", text.lower())}
    assert 250 < len(words) < 700
    assert all(text[0].isupper() and text[-1] in ".?" for text in drawn)


def test_a_text_is_held_out_whatever_its_case_and_punctuation():
    held_out = [text for text in SENTENCES if texts.is_held_out_text(text)]
    assert 0 < len(held_out) < len(SENTENCES) / 5
    assert all(texts.is_held_out_text(text.upper() + "!") for text in held_out)
    numbers = [f"number {n}" for n in range(4000)]
    assert sum(map(texts.is_held_out_text, numbers)) / 4000 == pytest.approx(texts.HELD_OUT_SHARE, abs=0.012)


@pytest.mark.parametrize("task", TASKS)
def test_samples_depend_on_seed_and_number(tones, task):
    one, same, other = (
        [json.dumps(sample, default=repr) for sample in islice(world(seed=seed).samples(task), 30)]
        for seed in (0, 0, 1)
    )
    addresses = re.compile(r" at 0x\w+")
    assert [addresses.sub("", s) for s in one] == [addresses.sub("", s) for s in same]
    assert one != other


@pytest.mark.parametrize("task", TASKS)
def test_training_has_no_held_out_text_or_voice(tones, task):
    for sample in islice(world().samples(task), 400):
        for clip in clips_in(sample):
            assert not texts.is_held_out_text(clip.text)
            assert not is_held_out(clip.voice)
        for turn in sample.get("turns", ()):
            assert not texts.is_held_out_text(turn["text"])
        assert not texts.is_held_out_text(sample.get("text", "a"))
    for sample in islice(world(held_out=True).samples(task), 100):
        clips = [sample[key] for key in ("audio", "input") if key in sample]
        clips += [turn["audio"] for turn in sample.get("turns", ()) if turn["role"] == "user" and "audio" in turn]
        for clip in clips:
            assert texts.is_held_out_text(clip.text)
        assert all(is_held_out(clip.voice) for clip in clips_in(sample))


def test_pairs_of_a_group_share_their_conversion_and_nothing_else(tones):
    samples = list(islice(world().samples("conversion"), 10 * GROUP))
    assert {sample["kind"] for sample in samples} == {"voice", "rate", "style", "denoise", "pitch"}
    for start in range(0, len(samples), GROUP):
        group = samples[start : start + GROUP]
        assert len({(s["group"], s["kind"], s["input"].voice, s["audio"].voice) for s in group}) == 1
        assert len({s["text"] for s in group}) > GROUP / 2
        for s in group:
            before, after = s["input"], s["audio"]
            assert before.text == after.text == s["text"]
            assert (speaker(before.voice) != speaker(after.voice)) == (s["kind"] == "voice")
            ratio = after.rate / before.rate
            assert {"rate": min(abs(ratio - 1.4), abs(ratio - 0.7)), "voice": abs(ratio - 1)}.get(s["kind"], 0) < 0.01
            assert bool(before.effects) == (s["kind"] == "denoise")
            assert bool(after.effects) == (s["kind"] in ("style", "pitch"))


def test_a_document_is_one_speaker(tones):
    samples = list(islice(world().samples("document"), 40))
    documents = {sample["document"] for sample in samples}
    assert len(documents) == 10
    for document in documents:
        assert len({(s["speaker"], s["rate"]) for s in samples if s["document"] == document}) == 1


def test_a_pitched_voice_keeps_its_pace(small, tmp_path):
    sample = next(s for s in world().samples("conversion") if s["kind"] == "pitch")
    waves = []
    for clip in (sample["input"], sample["audio"]):
        render(clip, tmp_path)
        waves.append(soundfile.read(tmp_path / clip.audio)[0])
    speech = [len(wave) - 0.2 * 24000 for wave in waves]  # a clip has 0.1 s of quiet at both ends
    factor = dict(sample["audio"].effects)["pitch"]
    assert speech[1] / speech[0] == pytest.approx(1, abs=0.12)
    before, after = (np.nanmedian(track_f0(wave, 24000)) for wave in waves)
    assert after / before == pytest.approx(factor, rel=0.02)


def test_descriptions_say_what_was_done_to_a_voice(tmp_path):
    text = "The children are playing in the garden behind the house today."

    def found(rate=1.0, effects=()):
        clip = Clip(text, "hibari/heart", rate, effects=effects)
        render(clip, tmp_path)
        return descriptions.measure(*soundfile.read(tmp_path / clip.audio, dtype="float32"), text)

    assert [found(rate).pace_word for rate in (0.6, 1.0, 1.6)] == ["slowly", "steadily", "fast"]
    assert found().background_word == "clean"
    assert found(effects=(("noise", "pink:20"),)).background_word == "noisy"
    assert found(effects=(("noise", "white:3"),)).background_word == "very noisy"
    assert found(effects=(("pitch", 1.3),)).pitch_word == "high"
    assert found(effects=(("pitch", 0.65),)).pitch_word == "deep"
    assert found(effects=(("whisper", 0.4),)).whispered
    assert not found().whispered
    assert "A whisper" in descriptions.caption(found(effects=(("whisper", 0.4),)), text, random.Random(0))


@pytest.fixture
def built(small, tmp_path) -> Path:
    build(SETTINGS, tmp_path / "world", 0)
    return tmp_path / "world"


def test_manifests_have_every_task_with_files_that_are_there(built):
    for split in SPLITS:
        for task in TASKS:
            found = rows(built, split, task)
            assert found
            for row in found:
                turns = row.get("turns", [])
                names = [row[key] for key in ("audio", "input", "voice") if key in row]
                names += [turn["audio"] for turn in turns if "audio" in turn]
                assert bool(names) == (task != "text")
                seconds = sum(soundfile.info(built / split / name).duration for name in names)
                assert seconds == pytest.approx(row.get("seconds", 0), abs=1e-3)
                said = [row[key] for key in ("caption", "question", "thought", "answer", "style", "text") if key in row]
                assert all(isinstance(text, str) and text for text in said)
    assert {"thought" in row for row in rows(built, "held_out", "understanding")} == {False, True}
    spoken = [row for row in rows(built, "held_out", "dialogue") if "voice" in row]
    assert spoken
    assert all("audio" in turn for row in spoken for turn in row["turns"])


SERVES = {  # as what the language model's trainer takes the samples
    "speech": "asr tts speech_continuation interleaved",
    "document": "asr tts speech_continuation interleaved",
    "conversion": "in_context_speech",
    "dialogue": "spoken_dialogue speech_to_text_dialogue text_dialogue",
    "instruct_tts": "instruct_tts",
    "understanding": "audio_understanding",
    "caption": "captioning",
    "text": "text text_dialogue",
}


@pytest.mark.parametrize("task", TASKS)
def test_the_trainer_takes_the_samples(built, task):
    found = [set(tasks_of(row)) for row in read_manifest(built / "held_out" / f"{task}.jsonl")]
    assert all(found)
    assert set().union(*found) == set(SERVES[task].split())


def test_hours_are_about_what_was_asked(built):
    seconds = sum(row["seconds"] for row in rows(built, "train", "speech"))
    assert 0.3 < seconds / (SETTINGS.hours * 3600 * SHARES["speech"]) < 4  # tones are not speech


def test_the_same_settings_give_the_same_files_whatever_interrupts(small, built, tmp_path):
    class Killed(BaseException):
        pass

    def kill(rendered, total, left=[20]):  # noqa: B006
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    with pytest.raises(Killed):
        build(SETTINGS, tmp_path / "other", 0, on_clip=kill)
    build(SETTINGS, tmp_path / "other", 0)
    assert files(tmp_path / "other") == files(built)


def test_more_hours_keep_what_is_there(built):
    before = files(built)
    build(Settings(hours=0.008, held_out=SETTINGS.held_out, voices=("tones",), seed=4), built, 0)
    after = files(built)
    for name in before.keys() - {"world.json"}:
        assert after[name].startswith(before[name])
    assert len(after["train/speech.jsonl"]) > len(before["train/speech.jsonl"])


def test_another_world_is_not_mixed_in(built):
    before = files(built)
    with pytest.raises(OutputError, match="holds another world, of seed 4"):
        build(Settings(hours=0.004, voices=("tones",), seed=5), built, 0)
    assert files(built) == before


def test_speech_that_is_there_goes_to_its_split(tmp_path):
    held_out = next(text for text in SENTENCES if texts.is_held_out_text(text))
    trained = next(text for text in SENTENCES if not texts.is_held_out_text(text))
    lines = [
        {"audio": "a.flac", "text": trained, "speaker": "someone", "held_out": False},
        {"audio": "b.flac", "text": held_out, "speaker": "someone", "held_out": False},
        {"audio": "c.flac", "text": held_out, "speaker": "stranger", "held_out": True},
        {"audio": "d.flac", "text": trained, "speaker": "stranger", "held_out": True},
        {"audio": "e.flac", "text": trained, "speaker": "kokoro/af_sky"},
    ]
    (tmp_path / "more").mkdir()
    manifest = tmp_path / "more" / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"audio": "half')
    found = read_speech([manifest], tmp_path / "world")
    assert {split: [row["audio"] for row in there] for split, there in found.items()} == {
        "train": ["../../more/a.flac"], "held_out": ["../../more/b.flac"], "held_out_voices": ["../../more/c.flac"],
    }  # fmt: skip
    manifest.write_text('{"audio": 5}\n')
    with pytest.raises(AudioError, match="expected JSON objects with audio, text and speaker"):
        read_speech([manifest], tmp_path)
    with pytest.raises(AudioError, match="cannot read"):
        read_speech([tmp_path / "none.jsonl"], tmp_path)


def test_the_command_prints_what_it_made(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mimo_audio.data.world.build.render_all", lambda clips, folder, workers: _render(clips, folder))
    arguments = ["--hours", "0.005", "--held-out", "2", "--voices", "tones", "--out", str(tmp_path / "w")]
    assert main(["data", "world", *arguments]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["hours", *TASKS]
    assert [line.split()[0] for line in table[1:]] == list(SPLITS)
    assert int(table[1].split()[2]) == len(rows(tmp_path / "w", "train", "speech"))


def _render(clips, folder):
    from mimo_audio.data.clips import render_all

    return render_all(clips, folder, 0)


def test_without_voices_it_says_what_to_install(small, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "installed", lambda: ({}, {"espeak": "espeak-ng is not installed"}))
    with pytest.raises(VoiceError, match="no voices are installed: espeak-ng"):
        build(Settings(hours=0.01), tmp_path, 0)
    assert not list(tmp_path.iterdir())
