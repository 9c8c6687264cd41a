"""Prompts: segments of ids, one function per task, and what an answer holds."""

from mimo_audio.prompts.answer import Answer, read_answer
from mimo_audio.prompts.builder import Prompt, PromptBuilder, Turn
from mimo_audio.prompts.in_context import Example

__all__ = ["Answer", "Example", "Prompt", "PromptBuilder", "Turn", "read_answer"]
