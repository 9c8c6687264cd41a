"""The text tokenizer of a model folder: byte-level BPE and MiMo-Audio's special tokens.

Text from a person is encoded with `specials=False`: a "<|im_end|>" in it is then ten ordinary characters, so that no
message can end its own turn. Decoding works on bytes, whole or as ids come, and never fails on a torn character.
"""

import codecs
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from mimo_audio.errors import ModelError, PromptError
from mimo_audio.text.folder import BYTES, read_tokenizer


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens, read by name from a tokenizer (sosp: <|sosp|>, human: <|Human|>, and so on)."""

    sosp: int
    eosp: int
    empty: int
    human: int
    speechlm: int
    sostm: int
    eostm: int
    eot: int
    im_start: int
    im_end: int
    endoftext: int


CAPITALS = {"human": "Human", "speechlm": "SpeechLM"}
TOKENS = {f.name: f"<|{CAPITALS.get(f.name, f.name)}|>" for f in fields(SpecialTokens)}
NOT_ADDED = ("im_start", "im_end", "endoftext")  # every chat model has them; the others are appended where they lack


def check_unicode(text: str, name: str = "text") -> None:
    """Raises PromptError, which begins with the argument's name, if the text holds half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"{name}: expected Unicode text, got half of a surrogate pair at {error.start}") from error


class TextTokenizer:
    """Text to ids and back; `special` are the ids of MiMo-Audio's tokens, `eos` is the folder's end of text."""

    def __init__(self, tokenizer: Tokenizer, eos: str = TOKENS["endoftext"]) -> None:
        """Takes a byte-level tokenizer and appends those special tokens that it lacks, in the order of their fields.

        Raises ModelError that lists <|im_start|>, <|im_end|>, <|endoftext|> and `eos` if they are not there.
        """
        needed = dict.fromkeys([*(TOKENS[name] for name in NOT_ADDED), eos])
        missing = [token for token in needed if tokenizer.token_to_id(token) is None]
        if missing:
            raise ModelError(f"the text tokenizer lacks the special tokens {', '.join(missing)}")
        tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in TOKENS.values()])
        self._tokenizer = tokenizer
        self._plain = Tokenizer(tokenizer.model)  # shares the vocabulary, has no added tokens
        for part in ("normalizer", "pre_tokenizer"):
            if getattr(tokenizer, part) is not None:
                setattr(self._plain, part, getattr(tokenizer, part))
        ids = tokenizer.get_vocab(with_added_tokens=True)
        self.special = SpecialTokens(*(ids[token] for token in TOKENS.values()))
        self.eos = ids[eos]
        self.size = max(ids.values()) + 1
        self._added = tokenizer.get_added_tokens_decoder()
        flagged = {index for index, token in self._added.items() if token.special}
        self._hidden = flagged | set(astuple(self.special))

    @classmethod
    def load(cls, folder: Path, vocab_size: int | None = None) -> "TextTokenizer":
        """The tokenizer of a model folder, refused if its ids exceed `vocab_size`, the rows of the model's embedding.

        Raises ModelError if the folder has none, it is damaged, or special tokens are missing.
        """
        tokenizer, eos = read_tokenizer(Path(folder))
        try:
            result = cls(tokenizer, eos)
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from error
        if vocab_size is not None and result.size > vocab_size:
            raise ModelError(
                f"{folder}: the text tokenizer, special tokens included, has ids up to {result.size - 1}, but the "
                f"model's vocab_size is {vocab_size}: are they of different models?"
            )
        return result

    def encode(self, text: str, specials: bool = True) -> list[int]:
        """Ids of the text; "<|eot|>" and its like become one id each or, without `specials`, remain ordinary text.

        Raises PromptError if the text is not valid Unicode.
        """
        check_unicode(text)
        tokenizer = self._tokenizer if specials else self._plain
        return tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of the ids; bytes that are not UTF-8 become U+FFFD, ids without a token (fill, say) become nothing."""
        return self._bytes(ids, skip_special).decode("utf-8", "replace")

    def stream(self, skip_special: bool = False) -> "TextStream":
        """A decoder for ids that come one after another."""
        return TextStream(self, skip_special)

    def _bytes(self, ids: Iterable[int], skip_special: bool) -> bytes:
        shown = (index for index in map(int, ids) if 0 <= index < self.size)
        return b"".join(self._bytes_of(index) for index in shown if not (skip_special and index in self._hidden))

    def _bytes_of(self, index: int) -> bytes:
        token = self._tokenizer.id_to_token(index) or ""
        if index in self._added or not BYTES.keys() >= set(token):
            return token.encode()
        return bytes(BYTES[character] for character in token)


class TextStream:
    """Decodes ids as they come: `push` gives the characters that are complete, `finish` what is left.

    A character is held back until its last byte is there; the pieces together are `decode` of all the ids.
    """

    def __init__(self, tokenizer: TextTokenizer, skip_special: bool = False) -> None:
        self._tokenizer, self._skip_special = tokenizer, skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Iterable[int]) -> str:
        """The characters that these ids complete."""
        return self._decoder.decode(self._tokenizer._bytes(ids, self._skip_special))

    def finish(self) -> str:
        """What a torn last character becomes: U+FFFD, or nothing if there is none."""
        return self._decoder.decode(b"", final=True)
