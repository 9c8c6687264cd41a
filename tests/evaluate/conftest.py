"""The shipped clip, for metrics that need speech."""

from importlib.resources import files

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """Three seconds of a shipped clip, float64 [72000] at 24 kHz."""
    with (files("mimo_audio") / "assets" / "sentence.wav").open("rb") as file:
        return soundfile.read(file, frames=72000)[0]
