"""An engine of voices that is always there: tones, whose pitch and length say what was asked for."""

import sys
from types import ModuleType

import numpy as np
import pytest

from mimo_audio.data.voices import HELD_OUT, VoiceError, engines

RATE = 16000


class Tones:
    """A tone of 0.05 s per letter; "bell" and "flute" sound at 400 and 300 Hz, "horn", which is held out, at 200."""

    voices = ("bell", "flute", "horn")
    slowest, fastest = 0.5, 2.0

    def speak(self, text: str, voice: str, rate: float, seed: int) -> tuple[np.ndarray, int]:
        if voice not in self.voices:
            raise VoiceError(f"voice: tones has bell, flute, horn, got {voice!r}")
        if text == "unspeakable":
            return np.zeros(100, np.float32), RATE
        time = np.arange(int(0.05 * len(text) / rate * RATE)) / RATE
        wave = 0.3 * np.sin(2 * np.pi * {"bell": 400, "flute": 300, "horn": 200}[voice] * time + seed)
        return np.pad(wave, RATE).astype(np.float32), RATE


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch) -> type[Tones]:
    """The engine "tones" beside the others, in this process."""
    module = ModuleType("tests_tones")
    module.Tones = Tones
    monkeypatch.setitem(sys.modules, "tests_tones", module)
    monkeypatch.setitem(engines.ENGINES, "tones", "tests_tones:Tones")
    monkeypatch.setitem(HELD_OUT, "tones", ("horn",))
    return Tones
