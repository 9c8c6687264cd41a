"""Casts: voices to draw speakers from, in shares."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mimo_audio.data.voices.engines import VoiceError, choose, engine
from mimo_audio.data.voices.held_out import is_held_out

WEIGHTS = (0.3, 0.5, 0.7)  # of the first voice in a mixture


@dataclass(frozen=True)
class Cast:
    """Groups of voices ENGINE/VOICE and the share of each group; `mixtures` is the share of Kokoro's that are mixed."""

    groups: tuple[tuple[str, ...], ...]
    shares: tuple[float, ...]
    mixtures: float = 0.0

    @classmethod
    def of(cls, requests: Sequence[str], mixtures: float = 0.0, held_out: bool = False) -> "Cast":
        """A group per request PATTERN or PATTERN=SHARE ("kokoro=3", "espeak/en-us+*"). Raises VoiceError."""
        groups, shares = [], []
        for request in requests:
            pattern, _, share = request.partition("=") if not request.startswith("mimo/") else (request, "", "")
            try:
                shares.append(float(share or 1))
            except ValueError:
                shares.append(0.0)
            if not 0 < shares[-1] < float("inf"):
                raise VoiceError(f"voices: expected a share above 0 as in kokoro=3, got {request!r:.80}")
            groups.append(tuple(choose([pattern], held_out)))
        if not groups:
            raise VoiceError("voices: expected at least one, got none")
        return cls(tuple(groups), tuple(shares), mixtures)

    def draw_other(self, rng: random.Random, voice: str) -> str | None:
        """The voice of another speaker; None if the cast has none."""
        if len({speaker(known) for group in self.groups for known in group} | {speaker(voice)}) == 1:
            return None
        while speaker(other := self.draw(rng)) == speaker(voice):
            pass
        return other

    def draw(self, rng: random.Random) -> str:
        """A voice, or a mixture of two Kokoro voices of one accent and kind that stand in the same group."""
        group = rng.choices(self.groups, self.shares)[0]
        voice = rng.choice(group)
        if not voice.startswith("kokoro/") or "+" in voice or rng.random() >= self.mixtures:
            return voice
        kind = voice[: len("kokoro/af")]
        others = [v for v in group if v.startswith(kind) and "+" not in v and v != voice]
        if not others or is_held_out(voice):  # new speakers between held-out ones are named in held_out.py
            return voice
        weight = rng.choice(WEIGHTS)
        return f"{voice}:{weight}+{rng.choice(others).partition('/')[2]}:{round(1 - weight, 1)}"


def speaker(voice: str) -> str:
    """Who is heard: hibari's voice is Kokoro's af_heart, and espeak-ng's variants are who they are in any accent."""
    if voice.startswith("espeak/"):
        return "espeak/" + voice.partition("+")[2]
    return "kokoro/af_heart" if voice == "hibari/heart" else voice


def possible_rate(voice: str, rate: float) -> float:
    """The rate, or the nearest to it that the voice's engine has."""
    spoken_by = engine(voice.partition("/")[0])
    return min(max(rate, spoken_by.slowest), spoken_by.fastest)
