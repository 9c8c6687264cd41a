"""Quality of speech without a reference: DNSMOS P.835 (Reddy et al., 2022), whose weights are in the package speechmos.

A network's guess of listeners' mean opinion scores, 1 to 5. Made to compare noise suppressors: it hears noise and
damage, and does not understand words. The package's own function needs librosa and more for a second score; this one
needs onnxruntime, and gives the same (of sounds of more than ten seconds the package loses some windows to rounding).
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import Wave

RATE = 16000
WINDOW = 144160  # samples, 9.01 s
OVERALL = (-0.06766283, 1.11546468, 0.04602535)  # from the network's scale to that of listeners: a x^2 + b x + c


def dnsmos(wave: Wave, sample_rate: int) -> float:
    """Overall quality (OVRL) of wave [N] in -1..1. Raises MimoError if a package is missing or the wave is empty."""
    session = _load()
    signal = soxr.resample(np.asarray(wave, np.float32), sample_rate, RATE).clip(-1, 1)
    if not len(signal):
        raise MimoError("DNSMOS: expected a wave, got no samples")
    while len(signal) < WINDOW:  # by doubling, as published
        signal = np.append(signal, signal)
    starts = range(0, int(len(signal) // RATE - WINDOW / RATE) * RATE + 1, RATE)
    pieces = np.stack([signal[start : start + WINDOW] for start in starts])
    raw = [session.run(None, {"input_1": piece[None]})[0][0][2] for piece in pieces]
    return float(np.mean(np.polyval(OVERALL, np.asarray(raw, np.float64))))


@lru_cache(1)
def _load() -> Any:
    package = find_spec("speechmos")
    try:
        import onnxruntime
    except ImportError:
        package = None
    if package is None or package.origin is None:
        raise MimoError("DNSMOS needs speechmos and onnxruntime: pip install speechmos onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    weights = Path(package.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    return onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
