"""stft and log_mel on NumPy arrays, without torch: what data workers import (0.3 s instead of seconds).

They are the CPU kernels of the ops of the same names, on the calling thread. They live in `mimo_audio_native._dsp`, an
extension module that needs nothing but NumPy; only the package around it imports torch.
"""

import importlib.util
import sys
from types import ModuleType

import numpy as np
from numpy.typing import NDArray


def _load() -> ModuleType:
    """The extension module, without running its package's __init__ (which imports torch)."""
    name = "mimo_audio_native._dsp"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("mimo_audio_native")
    places = package.submodule_search_locations if package else None
    for finder in sys.meta_path if places else ():
        spec = finder.find_spec(name, places)
        if spec and spec.loader:
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            return module
    raise ImportError(f"{name} is not installed: reinstall mimo-audio-native")


_dsp = _load()


def stft(
    wave: NDArray[np.float32], window: NDArray[np.float32], n_fft: int, hop: int, padding: str = "center"
) -> NDArray[np.complex64]:
    """Spectrum of one signal: wave [N], window [W] -> [T, n_fft // 2 + 1], as `mimo_audio_native.stft`.

    Raises ValueError for wrong shapes, dtypes (all float32) or sizes.
    """
    return _dsp.stft(wave, window, n_fft, hop, padding)


def log_mel(
    wave: NDArray[np.float32],
    window: NDArray[np.float32],
    filterbank: NDArray[np.float32],
    hop: int,
    floor: float = 1e-7,
    padding: str = "center",
) -> NDArray[np.float32]:
    """Log-mel spectrogram of one signal: wave [N] -> [T, n_mels], as `mimo_audio_native.log_mel`.

    Raises ValueError for wrong shapes, dtypes (all float32) or sizes.
    """
    return _dsp.log_mel(wave, window, filterbank, hop, floor, padding)
