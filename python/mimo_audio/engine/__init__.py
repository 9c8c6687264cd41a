"""The engine: many requests in one running batch, each with the same tokens alone or beside any others."""

from mimo_audio.engine.contracts import FinishReason, Guard, Limits, QueueFullError, Request, Result, Usage
from mimo_audio.engine.engine import Engine, Handle, generate
from mimo_audio.lm.samplers import Sampler

__all__ = [
    "Engine",
    "FinishReason",
    "Guard",
    "Handle",
    "Limits",
    "QueueFullError",
    "Request",
    "Result",
    "Sampler",
    "Usage",
    "generate",
]
