"""What a language model's folder may say beside its weights: its own voice, the words it was taught, how to draw.

`voice.tokens` (as `mimo-audio encode` writes it), `words.txt` (lower case, one a line) and `sampling.json` (options by
name, {"audio_temperature": 0.5}). Small models are taught few words and voices; released folders have no such file.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mimo_audio.errors import ModelError
from mimo_audio.files.schema import read_json, shown
from mimo_audio.files.tokens import fingerprint, read_tokens
from mimo_audio.tasks.options import Options
from mimo_audio.tokenizer import AudioTokenizer

VOICE, WORDS, SAMPLING = "voice.tokens", "words.txt", "sampling.json"
DRAWING = ("temperature", "top_k", "top_p", "audio_temperature", "audio_top_k", "audio_top_p")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")


@dataclass(frozen=True, eq=False)
class Defaults:
    """voice: codes [C, T] of a recording, or None. words: all that were taught, in lower case, or None for any.

    sampling: temperature, audio_temperature and the like (`Options`), where a request says nothing.
    """

    voice: Tensor | None = None
    words: frozenset[str] | None = None
    sampling: Options = field(default_factory=lambda: Options())

    @classmethod
    def load(cls, folder: Path, tokenizer: AudioTokenizer, channels: int) -> "Defaults":
        """What the folder says; channels: codebooks that the model reads. Raises ModelError, CodesError."""
        voice = words = None
        if (path := folder / VOICE).is_file():
            tokens = read_tokens(path)
            if tokens.fingerprint != fingerprint(tokenizer.quantizer.embeddings()):
                raise ModelError(f"{path}: codes of another audio tokenizer than the one that is given")
            if len(tokens.codes) < channels:
                raise ModelError(f"{path}: {len(tokens.codes)} codebooks, expected {channels}")
            voice = torch.from_numpy(tokens.codes[:channels].astype("int64"))
        if (path := folder / WORDS).is_file():
            try:
                words = frozenset(path.read_text(encoding="utf-8").lower().split())
            except (OSError, UnicodeDecodeError) as error:
                raise ModelError(f"cannot read {path}: {error}") from error
        return cls(voice, words, _sampling(folder / SAMPLING))

    def unknown(self, text: str) -> list[str]:
        """Words of a text that the model was not taught, each once, in their order."""
        if self.words is None:
            return []
        found = [word.replace("’", "'") for word in WORD.findall(text.lower())]
        return list(dict.fromkeys(word for word in found if word not in self.words))


def _sampling(path: Path) -> Options:
    if not path.is_file():
        return Options()
    try:
        values = read_json(path)
    except ValueError as error:
        raise ModelError(str(error)) from error
    known = isinstance(values, dict) and values.keys() <= set(DRAWING)
    if not known or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values.values()):
        raise ModelError(f"{path}: expected numbers for some of {', '.join(DRAWING)}, got {shown(values)}")
    return Options(**values)
