"""hibari: one woman's voice at a hundred times real time on a core, distilled from Kokoro's af_heart (Apache-2.0)."""

import numpy as np
from numpy.typing import NDArray

from mimo_audio.data.voices.engines import VoiceError


class Hibari:
    """The voices of the package hibari-tts that need no download."""

    slowest, fastest = 0.5, 2.0

    def __init__(self) -> None:
        try:
            from hibari import Hibari as Model
            from hibari.voices import VOICES
        except ImportError as error:
            raise VoiceError(f"hibari needs {error.name}: pip install 'mimo-audio-native[voices]'") from None
        self.voices = tuple(name for name, about in VOICES.items() if about.get("bundled"))
        self._models = {name: Model(name) for name in self.voices}

    def speak(self, text: str, voice: str, rate: float, seed: int) -> tuple[NDArray[np.float32], int]:
        """See Engine; the seed is that of the noise in consonants."""
        if voice not in self._models:
            raise VoiceError(f"voice: hibari has {', '.join(self.voices)}, got {voice!r:.80}")
        model = self._models[voice]
        return model(text, rate, seed), model.sample_rate
