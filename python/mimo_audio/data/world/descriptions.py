"""What a recording sounds like, in words, from what is measured in it: pitch, pace, voicing, background."""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimo_audio.pitch import track_f0

FRAME_SECONDS = 0.02
DEEP, HIGH = 140.0, 205.0  # Hz of the median fundamental
SLOW, FAST = 2.6, 4.2  # words per second
WHISPERED = 0.12  # of the frames, voiced at most
NOISY, VERY_NOISY = 34.0, 17.0  # dB between loud and quiet frames
QUESTIONS = {
    "pitch": ("Is the voice deep or high?", "How high is the voice?"),
    "pace": ("Does the speaker talk slowly or fast?", "How fast does the speaker talk?"),
    "voicing": ("Does the speaker whisper?", "Is this a whisper?"),
    "background": ("Is the recording clean?", "Is there noise in the background?"),
    "length": ("How long is the recording?", "How many seconds is this?"),
}


@dataclass(frozen=True)
class Measures:
    """Median fundamental in Hz (NaN if unvoiced), words per second, voiced share of frames, dB above the background."""

    pitch: float
    words_per_second: float
    voiced: float
    contrast: float
    seconds: float

    @property
    def pitch_word(self) -> str:
        return "deep" if self.pitch < DEEP else "high" if self.pitch > HIGH else "medium"

    @property
    def pace_word(self) -> str:
        return "slowly" if self.words_per_second < SLOW else "fast" if self.words_per_second > FAST else "steadily"

    @property
    def whispered(self) -> bool:
        return self.voiced < WHISPERED

    @property
    def background_word(self) -> str:
        return "very noisy" if self.contrast < VERY_NOISY else "noisy" if self.contrast < NOISY else "clean"


def measure(wave: NDArray[np.float32], sample_rate: int, text: str) -> Measures:
    """What a recording [N] of a text measures. Pauses at its ends count as speech: clips are trimmed."""
    f0 = track_f0(wave, sample_rate)
    voiced = np.isfinite(f0)
    width = round(FRAME_SECONDS * sample_rate)
    energy = np.square(wave[: len(wave) // width * width].astype(np.float64)).reshape(-1, width).mean(1)
    quiet, loud = np.percentile(energy, (5, 95)) if len(energy) else (1e-10, 1e-10)
    seconds = len(wave) / sample_rate
    return Measures(
        pitch=float(np.median(f0[voiced])) if voiced.any() else float("nan"),
        words_per_second=len(text.split()) / max(seconds - 0.2, 0.1),
        voiced=float(voiced.mean()) if len(voiced) else 0.0,
        contrast=float(10 * np.log10(max(loud, 1e-10) / max(quiet, 1e-10))),
        seconds=seconds,
    )


def caption(found: Measures, text: str, rng: random.Random) -> str:
    """A sentence or two on what is heard."""
    voice = "A whisper" if found.whispered else f"A {found.pitch_word} voice".replace("medium", "plain")
    verb = rng.choice(("speaks", "talks")) if not found.whispered else "is heard, speaking"
    place = {"clean": "in a clean recording", "noisy": "with noise around", "very noisy": "in loud noise"}
    sentence = f"{voice} {verb} {found.pace_word} {place[found.background_word]}."
    return sentence + (f' It says: "{text}"' if rng.random() < 0.5 else "")


def question(found: Measures, rng: random.Random) -> tuple[str, str, str]:
    """A question about the recording, a thought that names the measurement, and the answer."""
    kinds = [kind for kind in QUESTIONS if not (kind == "pitch" and found.whispered)]
    kind = rng.choice(kinds)
    asked = rng.choice(QUESTIONS[kind])
    if kind == "pitch":
        return asked, f"The voice lies near {found.pitch:.0f} hertz.", f"The voice is {found.pitch_word}."
    if kind == "pace":
        rate = f"About {found.words_per_second:.1f} words in a second."
        return asked, rate, f"The speaker talks {found.pace_word}."
    if kind == "voicing":
        heard = "There is no tone in the voice." if found.whispered else "There is a tone in the voice."
        return asked, heard, "Yes, it is a whisper." if found.whispered else "No, it is a full voice."
    if kind == "background":
        thought = f"The speech is {found.contrast:.0f} decibels above the background."
        return asked, thought, f"The recording is {found.background_word}."
    seconds = max(1, round(found.seconds))
    return asked, f"It lasts {found.seconds:.1f} seconds.", f"About {seconds} second{'s' if seconds > 1 else ''}."
