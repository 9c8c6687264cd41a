"""MiMo-Audio's language model over text tokens and audio patches (MiMo-Audio report, section 2.2)."""

from mimo_audio.lm.config import LanguageModelConfig
from mimo_audio.lm.model import AudioLanguageModel

__all__ = ["AudioLanguageModel", "LanguageModelConfig"]
