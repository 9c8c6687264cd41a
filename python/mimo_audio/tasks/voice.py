"""Any MiMo-Audio model as an engine of voices for training data: the report's own way (section 4.1.3)."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mimo_audio.data.voices import VoiceError

if TYPE_CHECKING:
    from mimo_audio.tasks.model import MimoAudio

SECONDS_PER_WORD, SECONDS_MORE = 1.0, 3.0  # far more than speech takes: what goes on longer does not say the text


class Mimo:
    """MODEL speaks in a voice of its own, MODEL@RECORDING in that of an audio file."""

    voices: tuple[str, ...] = ()
    slowest = fastest = 1.0

    def speak(self, text: str, voice: str, rate: float, seed: int) -> tuple[NDArray[np.float32], int]:
        """See Engine. Raises VoiceError also if the speech does not end within a second per word."""
        folder, _, recording = voice.partition("@")
        most = SECONDS_MORE + SECONDS_PER_WORD * len(text.split())
        speech = _load(folder).speak(text, Path(recording) if recording else None, seed=seed, max_seconds=most)
        if not speech.stats.ended:
            raise VoiceError(f"mimo/{voice}: did not end within {most:.0f} s for {text!r:.80}")
        return speech.wave.numpy(), speech.sample_rate


@lru_cache(1)
def _load(folder: str) -> "MimoAudio":
    from mimo_audio.tasks.model import load

    return load(folder)
