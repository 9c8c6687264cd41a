"""Packed micro-batches of token sets: pure functions of seed and step, documents whole and apart, tasks by weight."""

import json
import re
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from mimo_audio.data.token_set import SetDescription, TokenSetWriter
from mimo_audio.errors import CodesError
from mimo_audio.files.schema import checked
from mimo_audio.prompts import PromptBuilder
from mimo_audio.prompts.samples import DESCRIBE
from mimo_audio.text import TextTokenizer
from mimo_audio.train.lm_data import Data, PackedSamples, SetOfTasks, TaskWeights, tasks_of
from mimo_audio.train.recipe import TrainingError

FOLDER = Path(__file__).parents[1] / "golden" / "ckpt" / "A_lm_s0"
SIZES = (1024, 1024, 128, 128, 128, 128, 128, 128)
ABOUT = SetDescription("0123456789abcdef", "tiny", SIZES, 25.0)
ROWS = [
    *({"audio": f"/{n}.wav", "text": f"Number {n}", "speaker": "ab"[n % 2]} for n in range(6)),
    {"task": "caption", "audio": "/6.wav", "caption": "A bell"},
    {"task": "instruct_tts", "audio": "/7.wav", "text": "Hi", "style": "softly", "speaker": "a", "thought": "So."},
    {"task": "understanding", "audio": "/8.wav", "question": "Who?", "answer": "Me", "thought": "Well"},
    {"task": "understanding", "audio": "/8.wav", "question": "Who?", "answer": "Me"},
    {
        "task": "dialogue",
        "voice": "/0.wav",
        "turns": [
            {"role": "user", "text": "Hm?", "audio": "/9.wav"},
            {"role": "assistant", "text": "Oh", "audio": "/10.wav"},
        ],
    },
    {"task": "text", "text": "Only text."},
    *(
        {"task": "conversion", "group": "slow", "instruction": "Slower", "input": f"/{n}.wav", "audio": f"/{n + 1}.wav",
         "text": f"Number {n}"} for n in (1, 3, 5)
    ),
]  # fmt: skip
ALL = TaskWeights(**{field.name: 1.0 for field in fields(TaskWeights)})


def write_set(folder: Path, rows=ROWS, about=ABOUT, seconds: float = 1.0) -> Path:
    names = sorted({name for row in rows for name in json.dumps(row).split('"') if name.endswith(".wav")})
    rng = np.random.default_rng(0)
    frames = int(seconds * 25)
    with TokenSetWriter(folder, about) as writer:
        writer.add_recordings(
            names, [np.stack([rng.integers(0, s, frames) for s in about.codebook_sizes]) for _ in names]
        )
        writer.add_rows(rows)
    return folder


@pytest.fixture(scope="module")
def build() -> PromptBuilder:
    return PromptBuilder(TextTokenizer.load(FOLDER), 4, SIZES, tuple(size + 1 for size in SIZES))


def source(build, folder, tasks=ALL, rows=3, context=256, seed=1, **changes) -> PackedSamples:
    data = Data(sets=(SetOfTasks(set=str(folder), tasks=tasks),))
    return PackedSamples(replace(data, **changes), build, rows, context, seed)


def test_a_micro_batch_depends_on_seed_step_and_number_alone(build, tmp_path):
    folder = write_set(tmp_path / "set")
    first, second = source(build, folder), source(build, folder)
    expected = {place: first.batch(*place) for place in ((0, 0), (0, 1), (1, 0))}
    found = {}
    threads = [Thread(target=lambda p=p: found.update({p: second.batch(*p)})) for p in reversed(expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, batch in expected.items():
        for name in ("input_ids", "labels", "documents"):
            assert torch.equal(getattr(batch, name), getattr(found[place], name))
    ids = [batch.input_ids for batch in expected.values()] + [source(build, folder, seed=2).batch(0, 0).input_ids]
    assert not any(torch.equal(a, b) for i, a in enumerate(ids) for b in ids[:i])


def test_documents_are_whole_and_what_pads_is_no_label(build, tmp_path):
    batch = source(build, write_set(tmp_path / "set")).batch(0, 0)
    assert batch.input_ids.shape == batch.labels.shape == (3, 9, 256 * 4)
    special = build.layout.special
    for ids, labels, documents, tasks in zip(batch.input_ids, batch.labels, batch.documents, batch.tasks, strict=True):
        used = int((documents >= 0).sum())
        assert documents[:used].tolist() == sorted(documents[:used].tolist())
        assert documents.max() == len(tasks) - 1
        assert (documents[used:] == -1).all()
        assert (labels[:, used * 4 :] == -100).all()
        for number in range(len(tasks)):
            text = ids[0, ::4][documents == number].tolist()
            assert text[-1] in (special.im_end, special.eostm, special.eosp, special.endoftext) or (
                tasks[number] == "interleaved"
            )
        assert torch.equal(labels[labels >= 0], ids[labels >= 0])
    assert (batch.documents >= 0).float().mean() > 0.9


def test_tasks_come_by_weight(build, tmp_path):
    weights = TaskWeights(asr=3, captioning=1)
    many = source(build, write_set(tmp_path / "set"), weights, rows=40, context=256)
    tasks = Counter(task for row in many.batch(0, 0).tasks for task in row)
    assert set(tasks) == {"asr", "captioning"}
    assert 2 < tasks["asr"] / tasks["captioning"] < 4.5


def test_every_task_is_drawn_and_reads_as_its_row(build, tmp_path):
    batch = source(build, write_set(tmp_path / "set"), rows=40, context=256).batch(0, 0)
    shown = {}
    for ids, documents, tasks in zip(batch.input_ids, batch.documents, batch.tasks, strict=True):
        for number, task in enumerate(tasks):
            text = build.tokenizer.decode(ids[0, ::4][documents == number].tolist())
            shown.setdefault(task, set()).add(text.replace("<|empty|>", "#"))
    assert set(shown) == {field.name for field in fields(TaskWeights)}
    speech = "<|sosp|>#######<|eosp|>"
    assert any(text.endswith("</think>\nNumber 3<|im_end|>") for text in shown["asr"])
    assert all(text.count(speech) in (0, 1) for text in shown["tts"])
    assert any(speech in text for text in shown["tts"])  # a voice
    assert not all(speech in text for text in shown["tts"])
    assert all(DESCRIBE in text for text in shown["captioning"])
    assert any("<think>\nWell\n</think>\nMe<|im_end|>" in text for text in shown["audio_understanding"])
    assert any("<think>\n\n</think>\nMe<|im_end|>" in text for text in shown["audio_understanding"])
    assert shown["text"] == {"Only text.<|endoftext|>"}
    assert shown["speech_continuation"] == {speech}
    assert all("Your voice should be:" + speech in text for text in shown["spoken_dialogue"])
    assert all(f"user\n{speech}<|im_end|>" in text for text in shown["speech_to_text_dialogue"])
    assert all("user\nHm?<|im_end|>" in text for text in shown["text_dialogue"])
    assert {text.count("<|sostm|>") for text in shown["in_context_speech"]} == {2, 3}  # one or two examples


def test_a_voice_is_another_recording_of_the_speaker(build, tmp_path):
    rows = [{"audio": f"/{n}.wav", "text": str(n), "speaker": speaker} for n, speaker in enumerate("aaabbbc")]
    made = source(build, write_set(tmp_path / "set", rows), TaskWeights(tts=1), voice_prompt=1.0)
    reader, seen = made.choices[0][1], set()
    for row in reader.tokens.rows * 20:
        voice = reader._voice(row, np.random.default_rng(len(seen)))
        others = [r["audio"] for r in reader.tokens.rows if r["speaker"] == row["speaker"] and r is not row]
        if not others:
            assert voice is None
            continue
        (which,) = [r for r in range(7) if torch.equal(reader.codes(r), voice)]
        assert which in others
        seen.add((row["audio"], which))
    assert len(seen) > 6


def test_long_recordings_do_not_take_part(build, tmp_path):
    folder = write_set(tmp_path / "set")
    data = Data(sets=(SetOfTasks(set=str(folder), tasks=TaskWeights(asr=1), seconds=0.5),))
    with pytest.raises(TrainingError, match="expected rows for the task asr that are not held out, got none"):
        PackedSamples(data, build, 1, 64, 0)


@pytest.mark.parametrize(
    ("tasks", "context", "rows", "message"),
    [
        (TaskWeights(), 256, ROWS, "expected a task with a weight above 0, got none"),
        (TaskWeights(captioning=1), 256, ROWS[:6], "rows for the task captioning that are not held out, got none"),
        (TaskWeights(asr=1), 8, ROWS, "context: expected room for a sample, got 8 positions and none of 1000 fits"),
        (TaskWeights(captioning=1), 256, [{"task": "caption", "audio": "/0.wav"}], "captioning: lacks 'caption'"),
        (TaskWeights(in_context_speech=1), 256, ROWS[-1:], 'expected another pair of the same "group"'),
        (TaskWeights(asr=1), 256, [{"audio": "/0.wav", "text": " "}], "row [0-9a-f]{16}: asr: text: expected some"),
    ],
)
def test_data_that_cannot_serve_is_named(tasks, context, rows, message, build, tmp_path):
    folder = write_set(tmp_path / "set", rows)
    with pytest.raises(TrainingError, match=message):
        source(build, folder, tasks, context=context).batch(0, 0)


def test_a_set_of_other_codebooks_is_refused(build, tmp_path):
    folder = write_set(tmp_path / "set", about=replace(ABOUT, codebook_sizes=(512, *SIZES[1:])))
    with pytest.raises(TrainingError, match=r"expected codebooks of \[1024, .*, got \[512"):
        source(build, folder)


def test_sets_of_different_tokenizers_are_refused(build, tmp_path):
    sets = [write_set(tmp_path / name, about=replace(ABOUT, fingerprint=name * 16)) for name in "ab"]
    data = Data(sets=tuple(SetOfTasks(set=str(folder), tasks=ALL) for folder in sets))
    with pytest.raises(CodesError, match=r"b: tokens of another tokenizer .*expected fingerprint a{16} .*, got b{16}"):
        PackedSamples(data, build, 1, 256, 0)


def test_a_damaged_recording_ends_training_with_one_line_that_names_it(build, tmp_path):
    folder = write_set(tmp_path / "set", ROWS[:1])
    data = bytearray((folder / "codes.bin").read_bytes())
    data[9] ^= 1
    (folder / "codes.bin").write_bytes(data)
    with pytest.raises(TrainingError, match=r"asr: .*codes\.bin: recording 0 is damaged, its checksum differs"):
        source(build, folder, TaskWeights(asr=1)).batch(0, 0)


@pytest.mark.parametrize("held_out", [False, True])
def test_rows_held_out_are_apart(build, tmp_path, held_out):
    rows = [{**row, "held_out": number >= 3} for number, row in enumerate(ROWS[:6])]
    folder = write_set(tmp_path / "set", rows)
    made = source(build, folder, TaskWeights(asr=1, interleaved=1), rows=8, held_out=held_out)
    batch = made.batch(0, 0)
    said = {int(word) for row in batch.input_ids for word in re.findall(r"Number (\d)", decoded(build, row))}
    assert said == ({3, 4, 5} if held_out else {0, 1, 2})
    voices = {row["text"] for same in made.choices[0][1].by_speaker.values() for row in same}
    assert voices == {f"Number {n}" for n in said}
    none = write_set(tmp_path / "none", rows[:3] if held_out else rows[3:])
    with pytest.raises(TrainingError, match="that are held out" if held_out else "that are not held out"):
        source(build, none, TaskWeights(asr=1), held_out=held_out)


def decoded(build, ids):
    return build.tokenizer.decode([i for i in ids[0, ::4].tolist() if i != build.layout.special.empty])


def test_recipes_name_sets_and_tasks():
    problems: list[str] = []
    data = checked("data", Data, {"sets": [{"set": "x", "tasks": {"asr": 1}}], "voice_prompt": 0.3}, problems)
    assert not problems
    assert data == Data(sets=(SetOfTasks(set="x", tasks=TaskWeights(asr=1)),), voice_prompt=0.3)
    checked("data", Data, {"sets": [{"set": "x", "tasks": {"ars": 1}}]}, problems)
    assert "tasks may not have ars, only asr, tts" in problems[0]


def test_rows_serve_the_tasks_that_they_hold():
    turns = [{"role": "user", "audio": 0}, {"role": "assistant", "text": "x"}]
    assert tasks_of({"audio": 0}) == ("speech_continuation",)
    assert tasks_of({"task": "dialogue", "turns": turns}) == ("speech_to_text_dialogue",)
    assert tasks_of({"task": "unheard of", "audio": 0, "text": "x"}) == ()
