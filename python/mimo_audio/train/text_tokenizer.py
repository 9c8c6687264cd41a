"""Trains a text tokenizer for a language model of its own: byte-level BPE as Qwen2 has it, and the special tokens.

The released models come with theirs. One that is trained from scratch on a small world wants a vocabulary of its size:
embeddings are most of a small model.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, trainers

from mimo_audio.errors import ModelError
from mimo_audio.files.output import atomic_output
from mimo_audio.text.folder import BYTES, QWEN2
from mimo_audio.text.tokenizer import TOKENS, TextTokenizer, check_unicode

THOUGHT = ("<think>", "</think>")  # tokens, but text: an answer's thought is found by them
SMALLEST = len(BYTES) + len(TOKENS) + len(THOUGHT)
FILES = ("tokenizer.json", "tokenizer_config.json")


def train_text_tokenizer(texts: Iterable[str], size: int, folder: Path, force: bool = False) -> TextTokenizer:
    """Learns merges from texts until there are `size` ids, special tokens among them, and writes the folder's files.

    The same texts in any order give the same tokenizer. Texts of too few different pieces give a smaller one. Raises
    ModelError if `size` has no room for bytes and special tokens or there is no text, PromptError for half a surrogate
    pair, OutputError if a file is there already, unless `force`, or cannot be written.
    """
    if not isinstance(size, int) or not SMALLEST <= size <= 1 << 20:
        raise ModelError(f"size: expected an integer from {SMALLEST} to {1 << 20}, got {size!r:.50}")
    sentences = sorted(texts)
    for text in sentences:
        check_unicode(text)
    if not any(text.strip() for text in sentences):
        raise ModelError("texts: expected some text, got none")
    tokenizer = Tokenizer(models.BPE())
    shell = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}} | QWEN2
    parts = Tokenizer.from_str(json.dumps(shell))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = (
        parts.normalizer,
        parts.pre_tokenizer,
        parts.decoder,
    )
    others = len(TOKENS) + len(THOUGHT)
    trainer = trainers.BpeTrainer(
        vocab_size=size - others, min_frequency=2, initial_alphabet=list(BYTES), show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    first = (TOKENS["endoftext"], TOKENS["im_start"], TOKENS["im_end"])
    for token in (*first, *(token for token in TOKENS.values() if token not in first)):
        tokenizer.add_special_tokens([AddedToken(token, normalized=False)])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in THOUGHT])
    contents: dict[str, Any] = {
        "tokenizer.json": json.loads(tokenizer.to_str()),
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer", "eos_token": first[0], "pad_token": first[0]},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        with atomic_output(folder / name, force=force) as partial:
            partial.write_text(json.dumps(contents[name], ensure_ascii=False, indent=1), encoding="utf-8")
    return TextTokenizer.load(folder)


def texts_of(manifest: Path) -> list[str]:
    """Every text of a manifest: of its fields, of the turns of its dialogues. Raises ModelError."""
    try:
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {manifest}: {error}") from error
    return [text for row in rows for text in _strings(row)]


WORDED = ("text", "caption", "question", "answer", "thought", "instruction", "style", "turns")


def _strings(row: Any) -> Iterable[str]:
    if not isinstance(row, dict):
        return
    for name in WORDED:
        value = row.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            for turn in value:
                yield from _strings(turn)
