"""The language model's text: the tokenizer of a released folder and its special tokens."""

from mimo_audio.text.tokenizer import SpecialTokens, TextTokenizer

__all__ = ["SpecialTokens", "TextTokenizer"]
