"""Clips: speech that is wholly described by a few words, and rendered to files in worker processes, once.

A clip's file is named by what describes it, so that rendering goes on after any interruption, and the same clip in two
corpora is the same file.
"""

import hashlib
import json
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mimo_audio.data import effects, voices
from mimo_audio.errors import AudioError
from mimo_audio.files.output import atomic_output

SAMPLE_RATE = 24000
PEAK = 0.6
QUIET_DB = -40.0  # below the peak: trimmed at both ends
MARGIN_SECONDS = 0.1  # that stay there
AHEAD = 16  # clips per worker that may be under way


@dataclass(frozen=True)
class Clip:
    """A text in a voice, ENGINE/VOICE, at a rate, and effects on it: (name, value) pairs of mimo_audio.data.effects."""

    text: str
    voice: str
    rate: float = 1.0
    seed: int = 0
    effects: tuple[tuple[str, str | float], ...] = ()

    @property
    def audio(self) -> str:
        """The file's name within a corpus: a hash of all that describes the clip."""
        described = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()
        return f"audio/{described[:2]}/{described[2:16]}.flac"

    @property
    def plain(self) -> "Clip":
        """The same without effects."""
        return replace(self, effects=())


@dataclass(frozen=True)
class Rendered:
    """A clip's seconds, or why it could not be rendered."""

    clip: Clip
    seconds: float
    problem: str = ""


def tidy(wave: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Speech [N] at 24 kHz, without the quiet at its ends but for 0.1 s, with a peak of 0.6."""
    wave = soxr.resample(wave, sample_rate, SAMPLE_RATE)
    level = np.abs(wave)
    loud = np.flatnonzero(level > level.max(initial=1e-6) * 10 ** (QUIET_DB / 20))
    margin = round(MARGIN_SECONDS * SAMPLE_RATE)
    wave = wave[max(0, loud[0] - margin) : loud[-1] + margin] if len(loud) else wave
    return (wave * (PEAK / max(float(np.abs(wave).max(initial=0)), 1e-6))).astype(np.float32)


def render(clip: Clip, folder: Path) -> float:
    """Writes the clip's file below a folder unless it is there; returns its seconds. Raises VoiceError, OutputError.

    With effects, the clip without them is written first and read back: what the effects work on never depends on which
    files were there.
    """
    path = folder / clip.audio
    if not path.exists():
        if clip.effects:
            render(clip.plain, folder)
            wave, _ = soundfile.read(folder / clip.plain.audio, dtype="float32")
            seed = int(hashlib.sha256(clip.audio.encode()).hexdigest()[:8], 16)
            wave = effects.apply(wave, SAMPLE_RATE, clip.effects, np.random.default_rng(seed))
        else:
            wave = tidy(*voices.speak(clip.text, clip.voice, clip.rate, clip.seed))
        with atomic_output(path, force=True) as partial:
            soundfile.write(partial, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return soundfile.info(path).duration


def render_all(clips: Iterable[Clip], folder: Path, workers: int) -> Iterator[Rendered]:
    """Renders clips in so many processes (0: in this one) and yields them in their order as they are done.

    What a voice cannot say is yielded with its problem. Raises OutputError if files cannot be written, AudioError if a
    worker dies.
    """
    work = _Render(folder)
    if workers == 0:
        yield from map(work, clips)
        return
    clips = iter(clips)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_ignore_interrupt) as pool:
        under_way = deque(pool.submit(work, clip) for clip in islice(clips, AHEAD * workers))
        try:
            while under_way:
                yield under_way.popleft().result()
                under_way.extend(pool.submit(work, clip) for clip in islice(clips, 1))
        except BrokenProcessPool as error:
            raise AudioError("a worker died (out of memory?): the same command goes on from here") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Render:
    folder: Path

    def __call__(self, clip: Clip) -> Rendered:
        try:
            return Rendered(clip, render(clip, self.folder))
        except voices.VoiceError as error:
            return Rendered(clip, 0.0, str(error))


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of a terminal; the parent ends the workers, between clips."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
