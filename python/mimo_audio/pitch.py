"""Fundamental frequency by autocorrelation, for the F0 error: numpy only, so that every round trip can report it.

Why not Praat (praat-parselmouth)? It is GPL and a large binary, and the question here is only whether the decoded voice
keeps its pitch. On clean speech the two agree: over nine clips their median difference was at most 0.1%, and at most 4%
of the frames voiced in both differed by more than 20%.

Nor librosa (pYIN), which brings half a gigabyte with numba, scipy and scikit-learn and compiles at its first call: on
the two shipped clips the median difference was 0.9% and 2.5%, and at most 3% of the frames voiced in both differed by
more than 20%. Nor pyworld, of which pip found no wheels for Linux.
"""

import numpy as np
from numpy.typing import NDArray

F_MIN, F_MAX = 75.0, 500.0  # Hz: from a low male voice to a child's
WINDOW_SECONDS, HOP_SECONDS = 0.04, 0.01  # three periods of F_MIN
VOICED_CORRELATION = 0.6
SILENCE_DB = -35.0  # frames this far below the loudest one are not speech
OCTAVE_COST = 0.03  # per octave: of two equally good periods the shorter is the true one


def track_f0(wave: NDArray[np.floating], sample_rate: int) -> NDArray[np.float64]:
    """Fundamental frequency of each 10 ms frame of wave [N], in Hz, NaN where unvoiced -> [T].

    The autocorrelation of a Hann-windowed 40 ms frame is divided by the window's own (so that a periodic signal reaches
    1 at its period); its highest local maximum between 75 and 500 Hz, refined by a parabola, is the period if it is at
    least 0.6.
    """
    width, hop = round(WINDOW_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    if len(wave) < width:
        return np.empty(0)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(wave, np.float64), width)[::hop]
    frames = frames - frames.mean(1, keepdims=True)
    correlation = _autocorrelation(frames, sample_rate)
    shortest, longest = int(sample_rate / F_MAX), int(np.ceil(sample_rate / F_MIN))

    lags = np.arange(shortest, longest + 1)
    left, middle, right = (correlation[:, lags + step] for step in (-1, 0, 1))
    is_peak = (middle >= left) & (middle > right)
    slope, curvature = right - left, np.where(is_peak, left - 2 * middle + right, -1)
    shift = -slope / (2 * curvature)  # of the parabola through the three values, in samples
    height = middle + slope * shift / 4
    score = np.where(is_peak, height - OCTAVE_COST * np.log2(lags / shortest), -np.inf)
    best = score.argmax(1)
    chosen = np.arange(len(frames)), best

    energy = np.square(frames).mean(1)
    loud = energy > max(energy.max() * 10 ** (SILENCE_DB / 10), 1e-10)
    voiced = loud & is_peak[chosen] & (height[chosen] >= VOICED_CORRELATION)
    return np.where(voiced, sample_rate / (lags[best] + shift[chosen]), np.nan)


def _autocorrelation(frames: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
    """Normalised autocorrelation of frames [T, W] -> [T, lags up to 1 / F_MIN and one more]."""
    width = frames.shape[1]
    size = 1 << (2 * width - 1).bit_length()
    count = int(np.ceil(sample_rate / F_MIN)) + 2

    def correlate(signals: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.fft.irfft(np.square(np.abs(np.fft.rfft(signals, size))), size)[:, :count]

    window = np.hanning(width)
    raw, own = correlate(frames * window), correlate(window[None])
    return raw / np.maximum(raw[:, :1], 1e-12) / (own / own[:, :1])
