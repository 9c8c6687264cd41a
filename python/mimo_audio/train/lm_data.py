"""What a stage of language-model training reads, and the source of its micro-batches."""

from dataclasses import dataclass

from mimo_audio.errors import MimoError
from mimo_audio.lm import LanguageModelConfig
from mimo_audio.text import TextTokenizer
from mimo_audio.train.batch import Source


@dataclass(frozen=True, kw_only=True)
class Data:
    """A stage's data in a recipe."""


def make_source(
    data: Data, config: LanguageModelConfig, text: TextTokenizer, rows: int, context: int, seed: int
) -> Source:
    """Micro-batches of `rows` rows of `context` positions. Raises MimoError."""
    raise MimoError("data: no source of training data can be read yet")
