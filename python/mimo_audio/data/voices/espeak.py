"""espeak-ng: many voices in many accents, robotic, tiny (Debian package espeak-ng, GPL-3, run as a program)."""

import io
import re
import subprocess

import numpy as np
import soundfile
from numpy.typing import NDArray

from mimo_audio.data.voices.engines import VoiceError
from mimo_audio.data.voices.held_out import HELD_OUT

WORDS_PER_MINUTE = 165  # at rate 1
ACCENTS = "en-us en-gb en-gb-scotland en-029 en-gb-x-rp de es fr it cmn-latn-pinyin".split()
VARIANTS = (
    "f1 f2 f3 f4 m1 m2 m3 m4 m5 m6 m8 adam Alex Alicia Andrea Andy Annie antonio aunty belinda benjamin boris "
    "caleb david Denis Diogo ed edward edward2 Gene Gene2 grandma grandpa gustave Henrique Hugo iven iven2 iven3 "
    "iven4 Jacky john kaukovalta Lee linda marcelo Marco Mario max Michael michel miguel mike Nguyen norbert "
    "pablo paul pedro quincy rob sandro shelby steph steph2 travis Tweaky Zac"
).split()


class Espeak:
    """ACCENT+VARIANT or ACCENT+VARIANT:PITCH, pitch 0-99 (50 if not given)."""

    voices = tuple(f"{accent}+{variant}" for accent in ACCENTS for variant in (*VARIANTS, *HELD_OUT["espeak"]))
    slowest, fastest = 0.5, 2.5

    def __init__(self) -> None:
        _run("--version")

    def speak(self, text: str, voice: str, rate: float, seed: int) -> tuple[NDArray[np.float32], int]:
        """See Engine; there is no chance in it."""
        match = re.fullmatch(r"([\w+-]+)(?::(\d\d?))?", voice)
        if not match:
            raise VoiceError(f"voice: espeak wants ACCENT+VARIANT:PITCH, pitch 0 to 99, got {voice!r:.80}")
        name, pitch, speed = match[1], match[2] or "50", str(round(WORDS_PER_MINUTE * rate))
        said = _run("-v", name, "-s", speed, "-p", pitch, "--stdin", "--stdout", text=text)
        try:
            return soundfile.read(io.BytesIO(said), dtype="float32")
        except soundfile.SoundFileError as error:
            raise VoiceError(f"espeak-ng gave no sound in voice {voice!r:.80}: {error}") from None


def _run(*arguments: str, text: str = "") -> bytes:
    try:
        done = subprocess.run(["espeak-ng", *arguments], input=text.encode(), capture_output=True, check=True)
    except FileNotFoundError:
        raise VoiceError("espeak-ng is not installed; its voices need it (Debian package espeak-ng)") from None
    except subprocess.CalledProcessError as error:
        raise VoiceError(f"espeak-ng {' '.join(arguments)}: {error.stderr.decode(errors='replace').strip()}") from None
    return done.stdout
