"""The text tokenizer: both layouts of its files, special tokens, decoding as ids come, damaged folders."""

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from mimo_audio.errors import ModelError, PromptError
from mimo_audio.text import TextTokenizer

TEXTS = (
    "",
    "Hello, world! 你好 123",
    "🎉👩‍👩‍👧 caf\u00e9 cafe\u0301 ＡＢＣ①٣",
    "  two  spaces \t\r\n\n end ",
    "I'M don't they'LL 3.14159 --- <|nospecial|>",
    "\0\x1f\x85\u2028",
    "<|im_start|>user\nhello<|im_end|>\n<|sosp|><|empty|><|eosp|>",
)
JSON_FILES = ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer_config.json")


@pytest.fixture
def folder(tokenizer_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tokenizer's files that a test may damage."""
    for name in (*JSON_FILES, "merges.txt"):
        (tmp_path / name).write_bytes((tokenizer_folder / name).read_bytes())
    return tmp_path


def edit(path: Path, change: Callable[[Any], object]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def without_specials(folder: Path, *names: str) -> None:
    """Takes special tokens out of every file."""
    edit(folder / "added_tokens.json", lambda added: [added.pop(name) for name in names])
    for file, where in (("tokenizer.json", "added_tokens"), ("tokenizer_config.json", "added_tokens_decoder")):

        def drop(values: dict, where: str = where) -> None:
            listed = values[where]
            if isinstance(listed, list):
                values[where] = [token for token in listed if token["content"] not in names]
            else:
                values[where] = {i: token for i, token in listed.items() if token["content"] not in names}

        edit(folder / file, drop)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_tokenizers_library(tokenizer: TextTokenizer, tokenizer_folder: Path, text: str) -> None:
    library = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    ids = tokenizer.encode(text)
    assert ids == library.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("text", TEXTS)
def test_vocabulary_and_merges_serve_as_well_as_tokenizer_json(
    tokenizer: TextTokenizer, folder: Path, text: str
) -> None:
    (folder / "tokenizer.json").unlink()
    older = TextTokenizer.load(folder)
    assert older.special == tokenizer.special
    assert older.eos == tokenizer.eos
    for specials in (True, False):
        assert older.encode(text, specials) == tokenizer.encode(text, specials)


def test_text_of_a_person_makes_no_special_tokens(tokenizer: TextTokenizer) -> None:
    text = TEXTS[-1]
    first_special = tokenizer.special.endoftext
    assert max(tokenizer.encode(text)) >= first_special
    assert max(tokenizer.encode(text, specials=False)) < first_special
    assert tokenizer.decode(tokenizer.encode(text, specials=False), skip_special=True) == text


def test_decoding_skips_special_tokens_on_demand(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("<|im_start|>user\n<|sosp|><|empty|>Hi<|eot|><|Human|>")
    assert tokenizer.decode(ids) == "<|im_start|>user\n<|sosp|><|empty|>Hi<|eot|><|Human|>"
    assert tokenizer.decode(ids, skip_special=True) == "user\nHi"


def test_added_tokens_that_are_not_special_are_text(tokenizer_folder: Path) -> None:
    """As <think> and <tool_call> of the release."""
    library = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    library.add_tokens([AddedToken("<think>", special=False)])
    tokenizer = TextTokenizer(library)
    ids = tokenizer.encode("<think>a<|eot|>")
    assert len(ids) == 3
    assert tokenizer.decode(ids, skip_special=True) == "<think>a"


def test_ids_without_a_token_decode_to_nothing(tokenizer: TextTokenizer) -> None:
    assert tokenizer.decode([-100, 703, 10**6, *tokenizer.encode("ab"), -1]) == "ab"


def test_any_ids_decode_at_once_or_one_by_one(tokenizer: TextTokenizer, tokenizer_folder: Path) -> None:
    library = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    chance = random.Random(0)
    for _ in range(500):
        ids = [chance.randrange(tokenizer.size) for _ in range(chance.randrange(12))]
        stream = tokenizer.stream()
        pieces = [stream.push([index]) for index in ids] + [stream.finish()]
        assert "".join(pieces) == tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=False)


def test_a_stream_holds_a_torn_character_back(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("🎉")
    assert len(ids) == 4
    stream = tokenizer.stream()
    assert [stream.push([index]) for index in ids] == ["", "", "", "🎉"]
    assert stream.finish() == ""
    assert stream.push(ids[:2]) == ""
    assert stream.finish() == "\ufffd"


def test_missing_special_tokens_are_appended_in_order(folder: Path) -> None:
    without_specials(folder, "<|sosp|>", "<|eosp|>", "<|empty|>", "<|Human|>", "<|SpeechLM|>")
    without_specials(folder, "<|sostm|>", "<|eostm|>", "<|eot|>")
    for file in ("tokenizer.json", "vocab.json"):
        tokenizer = TextTokenizer.load(folder, vocab_size=651)
        special = tokenizer.special
        ids = (special.sosp, special.eosp, special.empty, special.human, special.speechlm, special.sostm)
        assert (*ids, special.eostm, special.eot) == (643, 644, 645, 646, 647, 648, 649, 650)
        assert tokenizer.encode("a<|eot|>")[-1] == 650
        (folder / file).unlink()


def test_special_tokens_of_the_files_keep_their_ids(folder: Path) -> None:
    without_specials(folder, "<|eot|>")  # the last one, so that no other moves
    assert TextTokenizer.load(folder).special.eot == 650
    with pytest.raises(ModelError, match=r"has ids up to 650, but the model's vocab_size is 650"):
        TextTokenizer.load(folder, vocab_size=650)


def test_a_chat_models_own_tokens_must_be_there(folder: Path) -> None:
    every = list(json.loads((folder / "added_tokens.json").read_text()))
    without_specials(folder, *every)
    with pytest.raises(ModelError, match=r"lacks the special tokens <\|im_start\|>, <\|im_end\|>, <\|endoftext\|>$"):
        TextTokenizer.load(folder)


def test_tokens_that_only_the_configuration_lists_are_added(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda layout: layout.update(added_tokens=layout["added_tokens"][:3]))
    (folder / "added_tokens.json").unlink()
    assert TextTokenizer.load(folder).encode("<|sosp|><|eot|>") == [643, 650]


def test_the_end_of_text_is_the_folders(folder: Path) -> None:
    assert TextTokenizer.load(folder).eos == 642
    edit(folder / "tokenizer_config.json", lambda config: config.update(eos_token={"content": "<|endoftext|>"}))
    assert TextTokenizer.load(folder).eos == 640
    edit(folder / "tokenizer_config.json", lambda config: config.update(eos_token="</s>"))
    with pytest.raises(ModelError, match=r"lacks the special tokens </s>$"):
        TextTokenizer.load(folder)


def test_half_a_surrogate_pair_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(PromptError, match="text: expected Unicode text, got half of a surrogate pair at 1"):
        tokenizer.encode("a\ud800")


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no text tokenizer here, expected tokenizer\.json, or vocab\.json and merge"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize("name", [*JSON_FILES, "merges.txt"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"null", b"[" * 100000])
def test_a_damaged_file_is_named(folder: Path, name: str, content: bytes) -> None:
    if name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as error:
        TextTokenizer.load(folder)
    assert name in str(error.value)


def test_a_cut_off_merges_file_is_noticed(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    text = (folder / "merges.txt").read_text(encoding="utf-8")
    (folder / "merges.txt").write_text(text[: text.rindex("\n", 0, len(text) // 2)], encoding="utf-8")
    with pytest.raises(ModelError, match=r"merges\.txt: expected a merge for each token of the vocabulary"):
        TextTokenizer.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layout: layout["model"].update(continuing_subword_prefix="x"), "without continuing_subword_prefix"),
        (lambda layout: layout["model"].update(type="WordPiece"), "expected a byte-level BPE"),
        (lambda layout: layout["model"].update(merges=["a b c"]), "merge 1: expected two tokens"),
        (lambda layout: layout["model"].update(merges=[["a", "nowhere"]]), "nowhere"),
        (lambda layout: layout["model"].update(vocab={"a": 0}), "lacks 255"),
        (lambda layout: layout["model"]["vocab"].update({"!": -1}), "expected an id from 0"),
        (lambda layout: layout["model"]["vocab"].update({"!": 1}), "share ids"),
        (lambda layout: layout.update(pre_tokenizer={"type": "Sequence"}), "not a usable text tokenizer"),
        (lambda layout: layout["added_tokens"][0].update(id=7), "'<|endoftext|>': listed with id 7"),
        (lambda layout: layout["added_tokens"].append("x"), "expected tokens with a content, got 'x'"),
        (lambda layout: layout.update(added_tokens=5), "added_tokens: expected a list of tokens"),
    ],
)
def test_a_tokenizer_json_that_is_none_says_why(folder: Path, change: Callable[[Any], None], message: str) -> None:
    edit(folder / "tokenizer.json", change)
    with pytest.raises(ModelError, match=message.replace("|", r"\|")):
        TextTokenizer.load(folder)


def test_loading_leaves_the_folder_as_it_was(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    TextTokenizer.load(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
