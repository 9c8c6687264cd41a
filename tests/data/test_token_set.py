"""Token sets: codes come back, growth, what a killed writer leaves behind, damage."""

import json
import os

import numpy as np
import pytest

from mimo_audio.data.manifest import read_manifest, recordings
from mimo_audio.data.token_set import SetDescription, TokenSet, TokenSetWriter, digest, merge
from mimo_audio.errors import AudioError, CodesError
from mimo_audio.files.output import OutputError

ABOUT = SetDescription("0123456789abcdef", "tiny", (16, 8), 25.0)


def random_codes(seed: int, frames: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, frames) for size in ABOUT.codebook_sizes])


CODES = {f"/{n}.wav": random_codes(n, 3 + n) for n in range(5)}
ROWS = [
    {"audio": "/0.wav", "text": "nothing", "speaker": "a"},
    {"turns": [{"role": "user", "audio": "/1.wav"}, {"role": "assistant", "text": "two", "audio": "/2.wav"}]},
    {"input": "/3.wav", "audio": "/4.wav", "text": "four"},
]


def fill(folder, rows=ROWS) -> None:
    with TokenSetWriter(folder, ABOUT) as writer:
        for row in rows:
            new = [name for name in recordings(row) if name not in writer.records]
            writer.add_recordings(new, [CODES[name] for name in new])
            writer.add_rows([row])


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_codes_and_rows_come_back(tmp_path):
    fill(tmp_path / "set")
    tokens = TokenSet(tmp_path / "set")
    assert len(tokens) == 5
    assert tokens.seconds == sum(3 + n for n in range(5)) / 25
    for record, codes in enumerate(CODES.values()):
        assert np.array_equal(tokens.codes(record), codes)
        assert np.array_equal(tokens.codes(record, 1, 3), codes[:, 1:3])
    assert tokens.rows[0] == {"id": digest(ROWS[0]), "audio": 0, "text": "nothing", "speaker": "a"}
    assert [turn["audio"] for turn in tokens.rows[1]["turns"]] == [1, 2]
    assert (tokens.rows[2]["input"], tokens.rows[2]["audio"]) == (3, 4)
    assert tokens.verify() == []


def test_a_set_grows_and_nothing_is_there_twice(tmp_path):
    fill(tmp_path / "whole")
    fill(tmp_path / "set", ROWS[:1])
    fill(tmp_path / "set")
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["codes.bin", "codes.idx", "records.jsonl", "rows.jsonl"])
def test_what_was_cut_off_anywhere_is_written_again(name, tmp_path):
    """A writer killed at any byte of any file: the next one ends with the set of one that was not."""
    folder = tmp_path / "set"
    fill(folder)
    whole = contents(folder)
    for cut in range(0, len(whole[name]), 7):
        for other, content in whole.items():
            (folder / other).write_bytes(content)
        os.truncate(folder / name, cut)
        fill(folder)
        assert contents(folder) == whole


def test_damage_is_found(tmp_path):
    fill(tmp_path)
    content = bytearray((tmp_path / "codes.bin").read_bytes())
    content[14] ^= 1
    (tmp_path / "codes.bin").write_bytes(content)
    assert TokenSet(tmp_path).verify() == ["recording 1: checksum differs"]
    (tmp_path / "codes.bin").write_bytes(content[:-4])
    with pytest.raises(CodesError, match=r"damaged, or codes\.bin is cut off"):
        TokenSet(tmp_path)


def test_damage_is_found_when_it_is_read(tmp_path):
    fill(tmp_path / "set")
    content = bytearray((tmp_path / "set/codes.bin").read_bytes())
    content[4 * 3 + 1] ^= 1  # of recording 1, after the three frames of recording 0
    (tmp_path / "set/codes.bin").write_bytes(content)
    tokens = TokenSet(tmp_path / "set")
    assert np.array_equal(tokens.codes(0), CODES["/0.wav"])
    for _ in range(2):
        with pytest.raises(CodesError, match=r"codes\.bin: recording 1 is damaged, its checksum differs"):
            tokens.codes(1, 2)


def test_a_changed_row_is_found(tmp_path):
    fill(tmp_path / "set")
    path = tmp_path / "set/rows.jsonl"
    path.write_text(path.read_text().replace("nothing", "nothinG"))
    assert TokenSet(tmp_path / "set").verify() == ["rows.jsonl:1: differs from the manifest's row"]
    fill(tmp_path / "other")
    records = tmp_path / "other/records.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:-1]))
    assert TokenSet(tmp_path / "other").verify() == ["records.jsonl: cut off, expected 5 lines, got 4"]


@pytest.mark.parametrize("name", ["records.jsonl", "rows.jsonl"])
@pytest.mark.parametrize("line", [b"{", b"7", b"\xff", b"[" * 9999])
def test_a_damaged_line_is_one_error_and_nothing_changes(tmp_path, name, line):
    folder = tmp_path / "set"
    fill(folder)
    lines = (folder / name).read_bytes().split(b"\n")
    (folder / name).write_bytes(b"\n".join([lines[0], line, *lines[2:]]))
    before = contents(folder)
    with pytest.raises(CodesError) as error:
        TokenSetWriter(folder, ABOUT)
    assert "\n" not in str(error.value)
    with pytest.raises(CodesError, match=rf"{name}:2: damaged, expected a JSON object"):
        TokenSet(folder).verify()
    assert contents(folder) == before


def test_one_process_writes_at_a_time(tmp_path):
    with (
        TokenSetWriter(tmp_path / "set", ABOUT),
        pytest.raises(OutputError, match="another process is writing this token set"),
    ):
        TokenSetWriter(tmp_path / "set", ABOUT)
    fill(tmp_path / "set")


def test_a_reader_takes_what_is_whole(tmp_path):
    fill(tmp_path / "set")
    with open(tmp_path / "set/rows.jsonl", "ab") as file:
        file.write(b'{"audio": 0, "te')
    with open(tmp_path / "set/codes.idx", "ab") as file:
        file.write(bytes(7))
    tokens = TokenSet(tmp_path / "set")
    assert (len(tokens), len(tokens.rows)) == (5, 3)


def test_codes_beyond_their_codebook_are_found(tmp_path):
    with TokenSetWriter(tmp_path, ABOUT) as writer:
        writer.add_recordings(["/0.wav"], [np.array([[1, 2], [3, 8]])])
    assert TokenSet(tmp_path).verify() == ["recording 0: codes beyond their codebook"]


def test_another_tokenizers_codes_are_refused(tmp_path):
    fill(tmp_path)
    other = SetDescription("f" * 16, "other", (16, 8), 25.0)
    with pytest.raises(CodesError, match=r"another tokenizer.*expected fingerprint 0123456789abcdef"):
        TokenSetWriter(tmp_path, other)
    assert len(TokenSet(tmp_path)) == 5


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="expected a token set, an empty folder or none"):
        TokenSetWriter(tmp_path, ABOUT)
    with pytest.raises(CodesError, match="not a token set"):
        TokenSet(tmp_path)


def test_sets_merge(tmp_path):
    fill(tmp_path / "a", ROWS[:2])
    fill(tmp_path / "b", ROWS[1:])
    fill(tmp_path / "whole")
    merged = merge([TokenSet(tmp_path / "a"), TokenSet(tmp_path / "b")], tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    assert merged.verify() == []


def test_a_full_disk_is_one_error_and_leaves_whole_recordings(tmp_path, monkeypatch):
    write, room = os.write, [40]

    def limited(file, content):
        if len(content) > room[0]:
            if room[0]:
                room[0] -= write(file, content[: room[0]])
            raise OSError(28, "No space left on device")
        room[0] -= len(content)
        return write(file, content)

    with TokenSetWriter(tmp_path, ABOUT) as writer:
        monkeypatch.setattr(os, "write", limited)
        with pytest.raises(OutputError, match=r"codes\.bin: cannot write, No space left on device"):
            writer.add_recordings(list(CODES), list(CODES.values()))
    monkeypatch.undo()
    fill(tmp_path)
    assert TokenSet(tmp_path).verify() == []
    assert len(TokenSet(tmp_path)) == 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "expected a JSON object, got '{'"),
        ("3", "expected a JSON object"),
        ('{"audio": 3}', "audio: expected a string, got 3"),
        ('{"audio": "a.wav", "text": ["x"]}', "text: expected a string"),
        ('{"turns": "x"}', "turns: expected a list of objects"),
        ('{"turns": [{"text": 1}]}', "text: expected a string, got 1"),
        ('{"speaker": "x"}', 'expected "audio", "text" or "turns", got speaker'),
        ('{"text": "\\ud800"}', "text: expected Unicode text"),
        ("[" * 100000, "expected a JSON object"),
    ],
)
def test_a_broken_manifest_is_one_error_that_names_the_line(line, message, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps({"audio": "a.wav"}) + f"\n\n{line}\n")
    with pytest.raises(AudioError, match=rf"manifest\.jsonl:3: {message}") as error:
        list(read_manifest(manifest))
    assert len(str(error.value)) < 400


def test_recordings_are_relative_to_the_manifest(tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text('{"audio": "x/a.wav", "turns": [{"audio": "b.wav"}], "extra": {"audio": 1}}\n')
    (row,) = read_manifest(manifest)
    assert row == {
        "audio": str(tmp_path / "x/a.wav"),
        "turns": [{"audio": str(tmp_path / "b.wav")}],
        "extra": {"audio": 1},
    }
