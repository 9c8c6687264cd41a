"""MiMo-Audio-Tokenizer: 24 kHz waveform <-> codes at 25 Hz (MiMo-Audio report, section 2.1)."""

from mimo_audio.tokenizer.model import AudioTokenizer

__all__ = ["AudioTokenizer"]
