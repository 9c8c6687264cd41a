"""flite: a few English voices made of recordings (Debian package flite, BSD-like, run as a program)."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from mimo_audio.data.voices.engines import VoiceError


class Flite:
    """The 16 kHz voices for whole sentences."""

    voices = ("awb", "kal16", "rms", "slt")
    slowest, fastest = 0.5, 2.0

    def __init__(self) -> None:
        _run("--version")

    def speak(self, text: str, voice: str, rate: float, seed: int) -> tuple[NDArray[np.float32], int]:
        """See Engine; there is no chance in it."""
        if voice not in self.voices:
            raise VoiceError(f"voice: flite has {', '.join(self.voices)}, got {voice!r:.80}")
        with tempfile.TemporaryDirectory(prefix="mimo-flite-") as folder:
            source, target = Path(folder, "text"), Path(folder, "wave.wav")
            source.write_text(text, encoding="utf-8")
            _run("-voice", voice, "--setf", f"duration_stretch={1 / rate:.4f}", "-f", str(source), "-o", str(target))
            try:
                return soundfile.read(target, dtype="float32")
            except soundfile.SoundFileError as error:
                raise VoiceError(f"flite gave no sound in voice {voice!r}: {error}") from None


def _run(*arguments: str) -> None:
    try:
        done = subprocess.run(["flite", *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError:
        raise VoiceError("flite is not installed; its voices need it (Debian package flite)") from None
    if done.returncode not in (0, 1) or (done.returncode == 1 and "--version" not in arguments):
        raise VoiceError(f"flite {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
