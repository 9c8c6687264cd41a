"""What an engine of voices is, which there are, and which voices a request means."""

import importlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mimo_audio.data.voices.held_out import HELD_OUT_MIXTURES, is_held_out
from mimo_audio.errors import AudioError

# By name, so that only what is asked for is imported; mimo lies floors above this one.
ENGINES = {
    "kokoro": "mimo_audio.data.voices.kokoro:Kokoro",
    "hibari": "mimo_audio.data.voices.hibari:Hibari",
    "espeak": "mimo_audio.data.voices.espeak:Espeak",
    "flite": "mimo_audio.data.voices.flite:Flite",
    "mimo": "mimo_audio.tasks.voice:Mimo",
}


class VoiceError(AudioError):
    """A voice is unknown, its engine is not installed, or it could not say a text."""


class Engine(Protocol):
    """Speaks texts in voices. Making one raises VoiceError, which says what to install, where something is missing.

    voices: names, without the engine's; others may be possible, as mixtures are. Rates go from slowest to fastest.
    """

    voices: tuple[str, ...]
    slowest: float
    fastest: float

    def speak(self, text: str, voice: str, rate: float, seed: int) -> tuple[NDArray[np.float32], int]:
        """The text as (wave [N] in -1 .. 1, sample rate in Hz); rate 1 is the voice's own, 2 twice as fast.

        The same arguments give the same wave; where a voice has no chance in it, any seed does. Raises VoiceError.
        """


@lru_cache
def engine(name: str) -> Engine:
    """The engine of that name, loaded once per process. Raises VoiceError."""
    if name not in ENGINES:
        raise VoiceError(f"voice: expected an engine of {', '.join(ENGINES)}, got {name!r:.80}")
    module, _, kind = ENGINES[name].partition(":")
    return getattr(importlib.import_module(module), kind)()


def engine_of(voice: str) -> tuple[Engine, str]:
    """The engine of ENGINE/VOICE, and VOICE. Raises VoiceError."""
    name, _, rest = voice.partition("/")
    if not rest:
        raise VoiceError(f"voice: expected ENGINE/VOICE with an engine of {', '.join(ENGINES)}, got {voice!r:.80}")
    return engine(name), rest


def speak(text: str, voice: str, rate: float = 1.0, seed: int = 0) -> tuple[NDArray[np.float32], int]:
    """The text as (wave [N] in -1 .. 1, sample rate in Hz), in the voice ENGINE/VOICE. Raises VoiceError."""
    spoken_by, name = engine_of(voice)
    if not spoken_by.slowest <= rate <= spoken_by.fastest:
        raise VoiceError(
            f"rate: {voice} speaks at {spoken_by.slowest:g} to {spoken_by.fastest:g} times its own rate, got {rate:g}"
        )
    if not text.strip():
        raise VoiceError("text: expected something to say, got none")
    wave, sample_rate = spoken_by.speak(text, name, rate, seed)
    if not np.isfinite(wave).all():
        raise VoiceError(f"{voice}: gave NaN or infinity for {text!r:.80}")
    if len(wave) == 0 or np.abs(wave).max() < 1e-3:
        raise VoiceError(f"{voice}: said nothing for {text!r:.80}")
    return wave.astype(np.float32), sample_rate


def installed() -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that have voices of their own and can be used here, and of the others what they lack."""
    found, missing = {}, {}
    for name in ENGINES:
        try:
            spoken_by = engine(name)
        except VoiceError as error:
            missing[name] = str(error)
            continue
        if spoken_by.voices:  # a MiMo-Audio model speaks in the voices of recordings
            found[name] = spoken_by
    return found, missing


def choose(patterns: Sequence[str], held_out: bool = False) -> list[str]:
    """The voices that patterns mean, sorted; those held out only, or none of them.

    A pattern is a voice ("flite/slt", a mixture), an engine ("kokoro") or either with * and ? ("kokoro/bf_*"). Raises
    VoiceError if a pattern means nothing, or names a voice of the other kind outright.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        name, slash, rest = pattern.partition("/")
        known = [f"{name}/{voice}" for voice in engine(name).voices]
        known += [voice for voice in HELD_OUT_MIXTURES if voice.startswith(f"{name}/")]
        wild = not slash or "*" in rest or "?" in rest
        glob = pattern if slash else f"{name}/*"
        found = [voice for voice in known if fnmatchcase(voice, glob)] if wild else [pattern]
        kept = [voice for voice in found if is_held_out(voice) == held_out]
        if not kept:
            kind, every = "held out" if held_out else "not held out", ", ".join(known) or "none"
            raise VoiceError(f"voices: {pattern!r:.80} is no voice that is {kind}; {name} has {every}")
        chosen.update(kept)
    return sorted(chosen)
