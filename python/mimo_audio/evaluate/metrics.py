"""Objective quality of a reconstruction: PESQ, STOI, mel distance, F0 error, and the bit rate of the tokens.

Signals are float arrays [N] in -1..1 at one sample rate, aligned in time. A metric that is undefined for its input
(silence, too short) or whose optional package is missing is None; nothing here raises on odd signals. PESQ and STOI
come from the packages `pesq` and `pystoi` (the extra "eval"): pesq needs a C compiler where it has no wheel, so both
stay optional.
"""

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio.pitch import track_f0

Wave = NDArray[np.floating]

MEL_RATE = 24000  # the mel distance is always taken here: 960-sample window, hop 240, 80 bands, whatever the model uses
MEL_FLOOR = 1e-3  # in mel magnitude: below it lies the rounding noise of 16-bit files
SPEECH_RATE = 16000  # PESQ (both bands) and STOI, as in the codec literature
MIN_VOICED_FRAMES = 10


def missing_packages() -> list[str]:
    """Names of the optional metric packages that are not installed."""
    return [name for name in ("pesq", "pystoi") if find_spec(name) is None]


def bitrate(codebook_sizes: Sequence[int], frame_rate: float) -> float:
    """kbit/s of one code per codebook and frame: sum(log2(size)) * frame_rate / 1000 (paper, section 2.1: 1.55)."""
    return sum(math.log2(size) for size in codebook_sizes) * frame_rate / 1000


def pesq_nb(reference: Wave, decoded: Wave, sample_rate: int) -> float | None:
    """Narrow-band PESQ (ITU-T P.862), 1 to 4.5, higher is better."""
    return _pesq(reference, decoded, sample_rate, "nb")


def pesq_wb(reference: Wave, decoded: Wave, sample_rate: int) -> float | None:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.6, higher is better."""
    return _pesq(reference, decoded, sample_rate, "wb")


def stoi(reference: Wave, decoded: Wave, sample_rate: int) -> float | None:
    """Short-time objective intelligibility, 0 to 1, higher is better."""
    if find_spec("pystoi") is None or not np.any(reference):
        return None
    import pystoi

    reference, decoded = _at(SPEECH_RATE, reference, decoded, sample_rate)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", RuntimeWarning
        )  # pystoi warns and returns 1e-5 where speech is too short to judge
        try:
            return float(pystoi.stoi(reference, decoded, SPEECH_RATE))
        except (RuntimeWarning, ValueError, IndexError):
            return None


def mel_distance(reference: Wave, decoded: Wave, sample_rate: int) -> float | None:
    """Mean absolute difference of the two log-mel spectrograms in dB (20 log10 of magnitude), lower is better."""
    reference, decoded = _at(MEL_RATE, reference, decoded, sample_rate)
    if len(reference) == 0:
        return None
    difference = log_mel(reference, MEL_FLOOR) - log_mel(decoded, MEL_FLOOR)
    return float(np.abs(difference).mean()) * 20 / math.log(10)


def f0_errors(reference: Wave, decoded: Wave, sample_rate: int) -> NDArray[np.float64]:
    """Relative errors |f_decoded / f_reference - 1| of the fundamental in the 10 ms frames voiced in both signals."""
    reference, decoded = _cut(reference, decoded)
    expected, actual = track_f0(reference, sample_rate), track_f0(decoded, sample_rate)
    both = ~np.isnan(expected) & ~np.isnan(actual)
    return np.abs(actual[both] / expected[both] - 1)


def f0_error(reference: Wave, decoded: Wave, sample_rate: int) -> float | None:
    """Median relative error of the fundamental (0.01 = 1%), lower is better; None below 0.1 s voiced in both."""
    return median_f0_error(f0_errors(reference, decoded, sample_rate))


def median_f0_error(errors: NDArray[np.float64]) -> float | None:
    """Median of the errors that f0_errors found, None if they are too few to mean anything."""
    return float(np.median(errors)) if len(errors) >= MIN_VOICED_FRAMES else None


def log_mel(wave: Wave, floor: float) -> NDArray[np.float32]:
    """Natural-log mel magnitudes of wave [N] at 24 kHz: window 960, hop 240, 80 bands up to 12 kHz -> [T, 80]."""
    window, filterbank = _mel_tables()
    signal = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))[None]
    return mn.log_mel(signal, window, filterbank, 240, floor)[0].numpy()


@lru_cache
def _mel_tables() -> tuple[Tensor, Tensor]:
    return torch.hann_window(960, dtype=torch.float32), mn.mel_filterbank(MEL_RATE, 960, 80, 0.0, MEL_RATE / 2)


def _pesq(reference: Wave, decoded: Wave, sample_rate: int, band: str) -> float | None:
    if find_spec("pesq") is None or not (np.any(reference) and np.any(decoded)):
        return None
    import pesq

    reference, decoded = _at(SPEECH_RATE, reference, decoded, sample_rate)
    try:
        return float(pesq.pesq(SPEECH_RATE, reference, decoded, band))
    except (pesq.PesqError, ValueError):  # no utterance found, shorter than 1/4 s
        return None


def _cut(reference: Wave, decoded: Wave) -> tuple[Wave, Wave]:
    length = min(len(reference), len(decoded))
    return reference[:length], decoded[:length]


def _at(rate: int, reference: Wave, decoded: Wave, sample_rate: int) -> tuple[Wave, Wave]:
    """Both signals at `rate`, cut to the shorter one."""
    reference, decoded = _cut(reference, decoded)
    if sample_rate == rate or len(reference) == 0:
        return reference, decoded
    return soxr.resample(reference, sample_rate, rate), soxr.resample(decoded, sample_rate, rate)
