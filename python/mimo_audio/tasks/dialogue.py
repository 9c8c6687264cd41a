"""What users may give as turns of a dialogue, and how it becomes the turns of a prompt."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from mimo_audio.prompts import Turn
from mimo_audio.tasks.results import Answer
from mimo_audio.tasks.sounds import Sound

Said: TypeAlias = Sound | Answer | Turn  # here a string is words, and a recording's path a pathlib.Path


def read_turns(said: Said | list[Said], encode: Callable[[Sound, str], Tensor], speech: bool) -> list[Turn]:
    """The turns with all audio as codes; without `speech` the assistant's are their words alone."""
    turns = []
    for index, item in enumerate(said if isinstance(said, list) else [said]):
        if isinstance(item, Answer):
            item = Turn("assistant", item.text, item.speech.codes if speech and item.speech else None)
        elif isinstance(item, str):
            item = Turn("user", item)
        elif not isinstance(item, Turn):
            item = Turn("user", audio=encode(item, f"turns[{index}]"))
        elif item.audio is not None:
            item = Turn(item.role, item.text, encode(item.audio, f"turns[{index}]"))
        turns.append(item)
    return turns
