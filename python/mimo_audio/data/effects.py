"""What is done to rendered speech for parallel data: whispering, pitch, rooms and noises, all made here, seeded.

Each effect is a function (wave [N], sample rate, value, generator of randomness) -> wave; `apply` chains them.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mimo_audio.errors import AudioError

Wave = NDArray[np.float32]
NOISES = ("white", "pink", "brown", "hum", "fan", "rain", "crackle")
ORDER, WINDOW_SECONDS = 24, 0.03  # of the linear prediction that a whisper keeps
SPEED_OF_SOUND = 343.0  # m/s
EARLY = 8  # reflections of a room before its tail


def apply(wave: Wave, sample_rate: int, effects: Sequence[tuple[str, str | float]], rng: np.random.Generator) -> Wave:
    """The wave [N] after each (name, value) in turn, never above full scale. Raises AudioError for unknown names."""
    for name, value in effects:
        if name not in EFFECTS:
            raise AudioError(f"effects: expected {', '.join(EFFECTS)}, got {name!r:.80}")
        wave = EFFECTS[name](wave, sample_rate, value, rng)
    return (wave / max(1.0, float(np.abs(wave).max(initial=0)) / 0.95)).astype(np.float32)


def pitch(wave: Wave, sample_rate: int, factor: str | float, rng: np.random.Generator) -> Wave:
    """Played faster by a factor: pitch and formants rise by it, and the wave is shorter by it."""
    import soxr

    return soxr.resample(wave, sample_rate * float(factor), sample_rate)


def whisper(wave: Wave, sample_rate: int, value: str | float, rng: np.random.Generator) -> Wave:
    """The same mouth without a voice: each frame's linear prediction filter (autocorrelation method), fed with noise.

    The noise has the energy of the frame's residual. What is low and voiced becomes softer, as in a whisper. `value` is
    the level against the original's, 1 for as loud.
    """
    width = round(WINDOW_SECONDS * sample_rate)
    hop = width // 2
    padded = np.pad(wave.astype(np.float64), (width, 2 * width))
    window = np.hanning(width + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(np.diff(padded, prepend=0.0), width)[::hop] * window
    size = 1 << (2 * width - 1).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, size)) ** 2, size)[:, : ORDER + 1]
    correlation[:, 0] = correlation[:, 0] * 1.0001 + 1e-9
    matrix = correlation[:, np.abs(np.subtract.outer(np.arange(ORDER), np.arange(ORDER)))]
    predictor = np.linalg.solve(matrix, correlation[:, 1:, None])[..., 0]
    energy = np.maximum(correlation[:, 0] - (predictor * correlation[:, 1:]).sum(1), 0)
    inverse = np.concatenate([np.ones((len(frames), 1)), -predictor], 1)
    noise = rng.standard_normal((len(frames), width)) * np.sqrt(energy / width)[:, None]
    shaped = np.fft.irfft(np.fft.rfft(noise * window, size) / np.fft.rfft(inverse, size), size)[:, :width]
    out = np.zeros(len(padded) + width)
    for index, frame in enumerate(shaped):
        out[index * hop : index * hop + width] += frame
    out = out[width : width + len(wave)]
    rms = np.sqrt(np.square(wave).mean() / max(np.square(out).mean(), 1e-12))
    return (float(value) * rms * out).astype(np.float32)


def room(wave: Wave, sample_rate: int, seconds: str | float, rng: np.random.Generator) -> Wave:
    """The wave in a room whose echo falls by 60 dB in so many seconds: a few walls, then a tail of decaying noise.

    As long as before, at the same RMS.
    """
    length = round(float(seconds) * sample_rate)
    response = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    response[: round(0.01 * sample_rate)] = 0  # before 10 ms there are only the first walls
    response *= 0.5 * float(seconds) / max(np.sqrt(np.square(response).sum()), 1e-9)
    response[0] += 1.0
    distances = rng.uniform(1.0, 8.0, EARLY)  # metres that a reflection goes further than the direct sound
    response[np.minimum((distances / SPEED_OF_SOUND * sample_rate).astype(int), length - 1)] += 0.4 / (1 + distances)
    size = 1 << (len(wave) + length - 1).bit_length()
    out = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(response, size), size)[: len(wave)]
    return (out * np.sqrt(np.square(wave).mean() / max(np.square(out).mean(), 1e-12))).astype(np.float32)


def noise(wave: Wave, sample_rate: int, value: str | float, rng: np.random.Generator) -> Wave:
    """The wave with a noise of NOISES at so many dB below it, as "rain:10"."""
    kind, _, decibels = str(value).partition(":")
    if kind not in NOISES:
        raise AudioError(f"noise: expected {', '.join(NOISES)}, got {kind!r:.80}")
    added = make_noise(kind, len(wave), sample_rate, rng)
    gain = np.sqrt(np.square(wave).mean() / 10 ** (float(decibels) / 10))
    return (wave + gain * added).astype(np.float32)


def make_noise(kind: str, samples: int, sample_rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A noise of NOISES, [samples], of RMS 1."""
    time = np.arange(samples) / sample_rate
    if kind == "hum":  # of the mains
        base = rng.choice((50.0, 60.0))
        out = sum(np.sin(2 * np.pi * (base * k * time + rng.random())) / k for k in range(1, 8))
    elif kind == "crackle":  # of a record
        out = np.where(rng.random(samples) < 30 / sample_rate, rng.standard_normal(samples), 0)
        out = _coloured(out, sample_rate, lambda f: 1 / (1 + (f / 4000) ** 2)) + 0.02 * rng.standard_normal(samples)
    elif kind == "rain":  # drops, and the hiss of those further away
        near = np.where(rng.random(samples) < 400 / sample_rate, rng.exponential(1.0, samples), 0)
        near, far = near * rng.standard_normal(samples), rng.standard_normal(samples)
        near = _coloured(near, sample_rate, lambda f: f / (1000 + f) / (1 + (f / 6000) ** 2))
        far = _coloured(far, sample_rate, lambda f: f / (2000 + f))
        out = near / max(near.std(), 1e-9) + 0.5 * far / max(far.std(), 1e-9)
    elif kind == "fan":  # brown noise, and blades that pass
        speed = rng.uniform(15, 40)
        blown = _coloured(rng.standard_normal(samples), sample_rate, lambda f: 1 / (60 + f))
        out = blown / max(blown.std(), 1e-9) * (1 + 0.4 * np.sin(2 * np.pi * speed * time))
    else:
        slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
        out = _coloured(rng.standard_normal(samples), sample_rate, lambda f: 1 / np.maximum(f, 20) ** slope)
    out = np.asarray(out, np.float64)
    return out / max(float(np.sqrt(np.square(out).mean())), 1e-9)


def _coloured(
    signal: NDArray[np.float64], sample_rate: int, shape: Callable[[NDArray[np.floating]], NDArray[np.floating]]
) -> NDArray[np.float64]:
    """The signal with the magnitudes of its spectrum multiplied by a function of Hz."""
    frequencies = np.fft.rfftfreq(len(signal), 1 / sample_rate)
    return np.fft.irfft(np.fft.rfft(signal) * shape(frequencies), len(signal))


EFFECTS = {"pitch": pitch, "whisper": whisper, "room": room, "noise": noise}
