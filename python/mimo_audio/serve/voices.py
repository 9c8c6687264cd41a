"""The voices that a service can speak in: its own, and those of recordings that were given to it."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from mimo_audio.serve.errors import ServeError

OWN = "default"  # the model's own
# OpenAI's names, so that its clients go on as they are: all are the model's own voice.
ALIASES = (
    "alloy", "ash", "ballad", "coral", "cedar", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip
MOST = 1000  # voices


@dataclass(frozen=True, eq=False)
class StoredVoice:
    """A voice by name and id: the codes int64 [C, T] of a recording of it, and seconds of it."""

    id: str
    name: str
    codes: Tensor = field(repr=False)
    seconds: float
    created: int


class VoiceStore:
    """Voices by name and by id; in memory."""

    def __init__(self) -> None:
        self._voices: dict[str, StoredVoice] = {}

    def __iter__(self) -> Iterator[StoredVoice]:
        return iter(self._voices.values())

    def add(self, name: str, codes: Tensor, seconds: float) -> StoredVoice:
        """Raises ServeError (409) for a name that is taken."""
        if name in (OWN, *ALIASES) or any(voice.name == name for voice in self):
            raise ServeError(409, f"name: {name!r} is taken, delete it first or choose another", "name_taken", "name")
        if len(self._voices) >= MOST:
            raise ServeError(409, f"there are {MOST} voices already, delete one first", "too_many_voices")
        voice = StoredVoice(f"voice_{secrets.token_hex(8)}", name, codes, seconds, int(time.time()))
        self._voices[voice.id] = voice
        return voice

    def find(self, voice: str | None) -> Tensor | None:
        """The codes of a voice by name or id, None for the model's own. Raises ServeError (404)."""
        if voice is None or voice in (OWN, *ALIASES):
            return None
        return self.get(voice).codes

    def get(self, voice: str) -> StoredVoice:
        """By name or id. Raises ServeError (404)."""
        for known in self:
            if voice in (known.id, known.name):
                return known
        raise ServeError(
            404, f"voice: no voice {voice!r:.80}; GET /v1/audio/voices lists them", "voice_not_found", "voice"
        )

    def remove(self, voice: str) -> StoredVoice:
        """Raises ServeError (404)."""
        return self._voices.pop(self.get(voice).id)
