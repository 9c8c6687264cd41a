"""Reads the text tokenizer of a model folder: tokenizer.json, or the vocab.json and merges.txt of older folders.

Only the parts of a byte-level BPE are taken from the files, each checked first: the tokenizers library, which gets
them, ends the whole process on some damaged files.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from mimo_audio.errors import ModelError

# How Qwen2 cuts text before BPE: contractions, words with one leading sign, single digits, signs, line ends, spaces.
QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = {
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN2_PIECES}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        ],
    },
}
LARGEST_ID = (1 << 24) - 1  # far beyond any vocabulary
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
BPE = tuple[dict[str, int], list[tuple[str, str]]]  # vocabulary and merges
ORNAMENTS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges")


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for; printable bytes stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = _byte_alphabet()


def read_tokenizer(folder: Path) -> tuple[Tokenizer, str]:
    """The tokenizer of a folder, and its token for the end of text. Raises ModelError.

    Tokens of added_tokens.json and tokenizer_config.json are added where the vocabulary lacks them.
    """
    config = _read_json(folder / "tokenizer_config.json", required=False)
    added = _added_tokens(folder, config)
    if (folder / "tokenizer.json").exists():
        path = folder / "tokenizer.json"
        layout = _read_json(path)
        vocabulary, merges = _bpe(path, layout.get("model"))
        added |= _listed(path, "added_tokens", layout.get("added_tokens"), "id")
    elif (folder / "vocab.json").exists():
        layout = QWEN2
        vocabulary, merges = _older_bpe(folder, {token.content for token in added.values()})
    else:
        raise ModelError(f"{folder}: no text tokenizer here, expected tokenizer.json, or vocab.json and merges.txt")
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        shell = {name: layout.get(name) for name in QWEN2}
        empty = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
        parts = Tokenizer.from_str(json.dumps(empty | shell))
        for name in (name for name, part in shell.items() if part is not None):
            setattr(tokenizer, name, getattr(parts, name))
        _add_tokens(tokenizer, added)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    except Exception as error:  # the library has no class of its own for what is wrong with a file
        raise ModelError(f"{folder}: not a usable text tokenizer, {error}") from error
    return tokenizer, _eos(folder, config)


def _bpe(path: Path, model: Any) -> BPE:
    """Vocabulary and merges in the "model" of a tokenizer.json, which must be a BPE without ornaments."""
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise ModelError(f"{path}: model: expected a byte-level BPE")
    for name in ORNAMENTS:
        if model.get(name):
            raise ModelError(f"{path}: model: expected a byte-level BPE without {name}, got {model[name]!r:.50}")
    vocabulary, merges = _checked_vocabulary(path, model.get("vocab")), model.get("merges")
    if not isinstance(merges, list):
        raise ModelError(f"{path}: merges: expected a list, got {type(merges).__name__}")
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return vocabulary, _checked_merges(path, pairs, vocabulary)


def _older_bpe(folder: Path, others: set[str]) -> BPE:
    """The same of vocab.json and merges.txt, in which a cut-off file of merges shows by what it no longer makes."""
    path = folder / "merges.txt"
    vocabulary = _checked_vocabulary(folder / "vocab.json", _read_json(folder / "vocab.json"))
    lines = (line for line in _read_text(path).split("\n") if line and not line.startswith("#version"))
    merges = _checked_merges(path, (line.split(" ") for line in lines), vocabulary)
    unmade = vocabulary.keys() - {first + second for first, second in merges} - BYTES.keys() - others
    if unmade:
        raise ModelError(
            f"{path}: expected a merge for each token of the vocabulary, got none for {len(unmade)} of them, such as "
            f"{min(unmade)!r:.50}; is the file complete?"
        )
    return vocabulary, merges


def _checked_merges(path: Path, pairs: Iterable[Any], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for number, pair in enumerate(pairs, 1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) and part for part in pair)):
            raise ModelError(f"{path}: merge {number}: expected two tokens, got {pair!r:.80}")
        if not {pair[0], pair[1], pair[0] + pair[1]} <= vocabulary.keys():
            raise ModelError(f"{path}: merge {number}: expected tokens of the vocabulary, got {pair!r:.80}")
        merges.append((pair[0], pair[1]))
    return merges


def _checked_vocabulary(path: Path, vocabulary: Any) -> dict[str, int]:
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise ModelError(f"{path}: vocabulary: expected ids by token, got {vocabulary!r:.50}")
    for token, index in vocabulary.items():
        if not _is_id(index):
            raise ModelError(f"{path}: token {token!r}: expected an id from 0 to {LARGEST_ID}, got {index!r:.50}")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise ModelError(f"{path}: vocabulary: expected one token per id, got {len(vocabulary)} tokens that share ids")
    lacking = len(BYTES.keys() - vocabulary.keys())
    if lacking:
        raise ModelError(f"{path}: vocabulary: expected one with a token for each byte, got one that lacks {lacking}")
    return vocabulary


def _added_tokens(folder: Path, config: dict[str, Any]) -> dict[int, AddedToken]:
    """The tokens beside the vocabulary, by id, as added_tokens.json and tokenizer_config.json list them."""
    added, path = {}, folder / "added_tokens.json"
    for token, index in _read_json(path, required=False).items():
        if not _is_id(index):
            raise ModelError(f"{path}: {token!r}: expected an id from 0 to {LARGEST_ID}, got {index!r:.50}")
        added[index] = AddedToken(token, normalized=False)
    return added | _listed(folder / "tokenizer_config.json", "added_tokens_decoder", config.get("added_tokens_decoder"))


def _listed(path: Path, where: str, listed: Any, key: str | None = None) -> dict[int, AddedToken]:
    """Added tokens with their flags: a table by id or, with `key`, a list of tokens that hold their id under it."""
    if not isinstance(listed or {}, dict if key is None else list | dict):
        raise ModelError(f"{path}: {where}: expected a list of tokens, got {listed!r:.50}")
    if key is None:
        pairs = [(int(index) if index.isdecimal() else index, token) for index, token in (listed or {}).items()]
    else:
        pairs = [(token.get(key) if isinstance(token, dict) else None, token) for token in listed or []]
    for index, token in pairs:
        if not (isinstance(token, dict) and isinstance(token.get("content"), str) and token["content"]):
            raise ModelError(f"{path}: {where}: expected tokens with a content, got {token!r:.80}")
        if not _is_id(index):
            raise ModelError(f"{path}: {where}: {token['content']!r}: expected an id, got {index!r:.50}")
    return {i: AddedToken(token["content"], **{flag: bool(token.get(flag)) for flag in FLAGS}) for i, token in pairs}


def _add_tokens(tokenizer: Tokenizer, added: dict[int, AddedToken]) -> None:
    """Adds the tokens in the order of their ids. Raises ModelError if one has, or would get, another id."""
    for index, token in sorted(added.items()):
        tokenizer.add_tokens([token])
        found = tokenizer.token_to_id(token.content)
        if found != index:
            raise ModelError(
                f"added token {token.content!r}: listed with id {index}, but the vocabulary has or gives it {found}"
            )


def _eos(folder: Path, config: dict[str, Any]) -> str:
    eos = config.get("eos_token") or "<|endoftext|>"
    eos = eos.get("content") if isinstance(eos, dict) else eos
    if not isinstance(eos, str) or not eos:
        raise ModelError(f"{folder / 'tokenizer_config.json'}: eos_token: expected a token, got {eos!r:.50}")
    return eos


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_ID


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def _read_json(path: Path, required: bool = True) -> dict[str, Any]:
    """The object in a JSON file; an empty one if the file is absent and not required. Raises ModelError."""
    if not required and not path.exists():
        return {}
    text = _read_text(path)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values
