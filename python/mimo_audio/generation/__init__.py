"""Generation of text and audio patches: one call, or sessions that keep what they have read."""

from mimo_audio.generation.session import Limits, Session, generate

__all__ = ["Limits", "Session", "generate"]
