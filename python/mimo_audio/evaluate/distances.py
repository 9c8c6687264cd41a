"""How far what a conversion gave is from its target, by what was to change; 0 where it arrives."""

from math import log, log2

from mimo_audio.evaluate.judges import WORST_QUALITY, Heard, similarity

SHORTEST = 0.01  # seconds, of an answer that is none


def distance(kind: str, made: Heard, target: Heard) -> float | None:
    """None where it is undefined: no judge, no pitch in the target, a kind that is unknown.

    voice: 1 - cosine of the voices. rate: |log(length / length)|, 0.1 for about 10%. pitch: semitones between the
    median fundamentals, an octave if there is none. style: difference of the shares of voiced frames (whispers have
    none). denoise: how much lower the quality is.
    """
    if kind == "voice":
        return None if target.voice is None else 1 - similarity(made, target)
    if kind == "rate":
        return abs(log(max(made.seconds, SHORTEST) / max(target.seconds, SHORTEST)))
    if kind == "pitch":
        if target.f0 is None:
            return None
        return 12.0 if made.f0 is None else 12 * abs(log2(made.f0 / target.f0))
    if kind == "style":
        return abs(made.voiced - target.voiced)
    if kind == "denoise":
        if target.quality is None:
            return None
        return max(0.0, target.quality - (made.quality if made.quality is not None else WORST_QUALITY))
    return None
