"""The tokenizer on streams: codes to sound and sound to codes as they arrive (MiMo-Audio report, section 2.1)."""

from mimo_audio.tokenizer.streaming.decoder import StreamDecoder
from mimo_audio.tokenizer.streaming.encoder import StreamEncoder
from mimo_audio.tokenizer.streaming.redecode import RedecodingDecoder

__all__ = ["RedecodingDecoder", "StreamDecoder", "StreamEncoder"]
