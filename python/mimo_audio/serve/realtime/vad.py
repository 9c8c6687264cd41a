"""Who speaks when: the probability of speech per 32 ms (Silero VAD), and the turns that follow from it.

The network comes with the package silero-vad (MIT), of which only that file is used: importing it would set torch to
one thread for the whole process. It has 310,000 weights; a window takes a fraction of a millisecond.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mimo_audio.errors import ModelError
from mimo_audio.serve.realtime.sound import RATE, Wave

if TYPE_CHECKING:
    import onnxruntime

VAD_RATE, WINDOW, CONTEXT = 16000, 512, 64  # Hz; samples of a window, and of the one before it that the network sees
STEP = WINDOW * RATE // VAD_RATE  # samples of a window at the session's rate: 768
STEP_MS = STEP * 1000 // RATE  # 32
LEAST = 2  # windows in a row that are speech before a turn begins: a click is one
HYSTERESIS = 0.15  # speech ends below threshold - HYSTERESIS, as in the model's own iterator


@lru_cache(1)
def load() -> "onnxruntime.InferenceSession":
    """The network, to be run by any thread. Raises ModelError if its packages are not installed."""
    spec = find_spec("silero_vad")
    path = Path(spec.origin).parent / "data" / "silero_vad_16k_op15.onnx" if spec and spec.origin else None
    try:
        import onnxruntime
    except ImportError:
        path = None
    if path is None or not path.is_file():
        raise ModelError(
            "voice activity detection needs silero-vad and onnxruntime: pip install 'mimo-audio-native[serve]'"
        )
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Detector:
    """Sound at 24 kHz as it comes -> the probability of speech in each window of 32 ms."""

    def __init__(self) -> None:
        import soxr

        self._network = load()
        self._resampler = soxr.ResampleStream(RATE, VAD_RATE, 1, dtype="float32")
        self._wave = np.zeros(CONTEXT, np.float32)  # what is not seen yet, after its context
        self._state = np.zeros((2, 1, 128), np.float32)

    def push(self, wave: Wave) -> list[float]:
        """The windows that the wave completes."""
        self._wave = np.concatenate([self._wave, self._resampler.resample_chunk(wave)])
        found = []
        while len(self._wave) >= CONTEXT + WINDOW:
            window = {"input": self._wave[None, : CONTEXT + WINDOW], "state": self._state, "sr": np.array(VAD_RATE)}
            probability, self._state = self._network.run(None, window)
            found.append(float(probability[0, 0]))
            self._wave = self._wave[WINDOW:]
        return found


@dataclass(frozen=True)
class TurnDetection:
    """When a turn begins and ends, and what follows; the fields of OpenAI's server_vad."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None


class Turns:
    """Probabilities of windows -> where speech begins and ends, in windows from the first one on."""

    def __init__(self) -> None:
        self.window = 0  # the number of the next
        self.speaking = False
        self._run = 0  # of windows that speak against the present state
        self._quiet: int | None = None  # the first window of the silence that may end the turn

    def push(self, probability: float, detection: TurnDetection) -> tuple[Literal["start", "stop"], int] | None:
        """The next window: ("start", the first window of speech), ("stop", the first window after it), or None."""
        window, self.window = self.window, self.window + 1
        if not self.speaking:
            self._run = self._run + 1 if probability >= detection.threshold else 0
            if self._run < LEAST:
                return None
            self.speaking, self._quiet, self._run = True, None, 0
            return "start", window + 1 - LEAST
        if probability >= detection.threshold:
            self._quiet = None
        elif self._quiet is None and probability < detection.threshold - HYSTERESIS:
            self._quiet = window
        if self._quiet is None or (window + 1 - self._quiet) * STEP_MS < detection.silence_duration_ms:
            return None
        self.reset()
        return "stop", window + 1

    def reset(self) -> None:
        """The turn is over, whatever is said next is another."""
        self.speaking, self._quiet, self._run = False, None, 0
