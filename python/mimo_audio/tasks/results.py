"""What the tasks of `MimoAudio` return."""

from dataclasses import dataclass, field
from os import PathLike

from torch import Tensor

from mimo_audio.engine import FinishReason
from mimo_audio.files import audio


@dataclass(frozen=True)
class Stats:
    """The work that an answer was: positions read, text tokens and patches written, seconds of generation.

    `ended`: the model ended the answer itself; `reason` says what did (`engine.contracts.FinishReason`).
    """

    prompt: int
    text: int
    patches: int
    seconds: float
    ended: bool
    reason: FinishReason = "stop"


@dataclass(frozen=True, eq=False)
class Response:
    """The ids int64 [1 + C, n * G] that the model added to a prompt, and what that took."""

    ids: Tensor
    stats: Stats


@dataclass(frozen=True, eq=False)
class Speech:
    """Generated speech: wave [N] float32 on the CPU, the codes int64 [C, T] it was decoded from, and what is said.

    `thought` is what the model thought about how to speak, if it was asked to.
    """

    wave: Tensor = field(repr=False)
    sample_rate: int
    codes: Tensor = field(repr=False)
    text: str
    thought: str | None
    stats: Stats

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.wave) / self.sample_rate

    def save(self, path: str | PathLike[str], force: bool = False) -> None:
        """Writes the format that the suffix names (.wav, .flac, .mp3, .ogg, .opus), whole or not at all.

        Raises AudioError for another suffix, OutputError if the file exists (without `force`) or cannot be written.
        """
        audio.write(path, self.wave, self.sample_rate, force)


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer in words, the thought behind it if it was asked for, and its speech if there is any."""

    text: str
    thought: str | None
    speech: Speech | None
    stats: Stats
