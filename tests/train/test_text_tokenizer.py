"""A text tokenizer of one's own: a layout that loads, special tokens in the release's order, text that comes back."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mimo_audio.cli import main
from mimo_audio.errors import ModelError, PromptError
from mimo_audio.files.output import OutputError
from mimo_audio.text import TextTokenizer
from mimo_audio.text.tokenizer import TOKENS
from mimo_audio.train.text_tokenizer import SMALLEST, texts_of, train_text_tokenizer

TEXTS = ["The rain in Spain stays mainly in the plain.", "It is time to go, isn't it?", "你好，世界", "12 apples"] * 5


def test_text_comes_back(tmp_path):
    tokenizer = train_text_tokenizer(TEXTS, 400, tmp_path / "text")
    for text in [*TEXTS, "Words that it has never seen: zyzzyva ✨\n\ttab"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    merged, unseen = tokenizer.encode("The rain in Spain"), tokenizer.encode("qu vex zap oh my")
    assert len(merged) < 8 < len(unseen)


def test_special_tokens_are_the_last_in_the_releases_order(tmp_path):
    tokenizer = train_text_tokenizer(TEXTS, 400, tmp_path / "text")
    special = tokenizer.special
    first = special.endoftext
    assert (special.im_start, special.im_end, special.sosp, special.eot) == (
        first + 1,
        first + 2,
        first + 3,
        first + 10,
    )
    assert tokenizer.eos == first
    assert tokenizer.size == first + len(TOKENS) + 2  # and the thought's two
    for mark in TOKENS.values():
        assert len(tokenizer.encode(mark)) == 1
        assert len(tokenizer.encode(mark, specials=False)) > 1
    thought = tokenizer.encode("<think>\nso\n</think>\n")
    assert tokenizer.decode(thought, skip_special=True) == "<think>\nso\n</think>\n"


def test_others_read_it_alike(tmp_path):
    """transformers takes the folder, and makes the same ids."""
    ours, theirs = train_text_tokenizer(TEXTS, 400, tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "<|im_start|>user\nhi there<|im_end|>\n"]:
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(theirs.encode(text)) == text
    assert theirs.eos_token_id == ours.eos


def test_the_order_of_texts_does_not_matter(tmp_path):
    train_text_tokenizer(TEXTS, 400, tmp_path / "a")
    train_text_tokenizer(reversed(TEXTS), 400, tmp_path / "b")
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_manifests_give_all_their_texts(tmp_path):
    rows = [
        {"audio": "a.wav", "text": "one", "speaker": "nobody"},
        {"question": "two", "thought": "three", "answer": "four"},
        {"turns": [{"role": "user", "text": "five"}, {"role": "assistant", "text": "six"}]},
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert sorted(texts_of(manifest)) == ["five", "four", "one", "six", "three", "two"]


def test_the_command_writes_a_tokenizer_that_knows_the_templates(tmp_path, capsys):
    manifest, out = tmp_path / "manifest.jsonl", tmp_path / "text"
    manifest.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    command = ["train", "text", str(manifest), "--size", "450", "--out", str(out)]
    assert main(command) == 0
    assert "450 ids from 20 texts" in capsys.readouterr().out
    assert len(TextTokenizer.load(out).encode("Please transcribe this audio file")) <= 6
    assert main(command) == 2
    assert "exists already; --force overwrites it" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0


@pytest.mark.parametrize(
    ("texts", "size", "error", "message"),
    [
        (TEXTS, SMALLEST - 1, ModelError, f"size: expected an integer from {SMALLEST} to 1048576, got {SMALLEST - 1}"),
        (TEXTS, 2.5, ModelError, "size: expected an integer"),
        ([" "], 400, ModelError, "texts: expected some text, got none"),
        (["\ud800"], 400, PromptError, "half of a surrogate pair"),
    ],
)
def test_bad_arguments(texts, size, error, message, tmp_path: Path):
    with pytest.raises(error, match=message):
        train_text_tokenizer(texts, size, tmp_path / "text")
    assert not (tmp_path / "text").exists()


def test_what_is_there_is_kept(tmp_path):
    train_text_tokenizer(TEXTS, 400, tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        train_text_tokenizer(TEXTS, 401, tmp_path)
    with pytest.raises(ModelError, match="cannot read"):
        texts_of(tmp_path / "absent.jsonl")
