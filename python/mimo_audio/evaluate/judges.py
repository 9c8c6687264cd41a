"""What recognisers, a speaker encoder and a judge of quality hear in a wave, beside its length and its pitch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import MEL_RATE, Wave, track_f0
from mimo_audio.evaluate.speech import Evaluator, ask, cosine
from mimo_audio.files import audio

WORST_QUALITY = 1.0  # of an answer that is no sound, as the worst of listeners' marks
SHORTEST_SECONDS = 0.1  # below it nobody is heard


@dataclass(frozen=True, eq=False)
class Heard:
    """A wave as the judges hear it: transcripts by recogniser; None without that judge, or if it hears nobody.

    f0: median fundamental in Hz, None below 0.1 s of voice; voiced: share of the frames that have one.
    """

    seconds: float
    transcripts: dict[str, str]
    voice: NDArray[np.floating] | None
    quality: float | None
    f0: float | None
    voiced: float


@dataclass
class Judges:
    """Recognisers by name, a speaker encoder and a judge of quality; files are judged once."""

    recognisers: Mapping[str, Evaluator]
    speaker: Evaluator | None = None
    quality: Evaluator | None = None
    _files: dict[Path, Heard] = field(default_factory=dict, repr=False)

    def hear_file(self, path: Path) -> Heard:
        """A recording. Raises AudioError, or MimoError if a judge fails on it."""
        if path not in self._files:
            try:
                self._files[path] = self._hear(audio.read(path, MEL_RATE).numpy(), MEL_RATE)
            except MimoError as error:
                raise MimoError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
        return self._files[path]

    def hear(self, wave: Wave, sample_rate: int) -> Heard:
        """What a model made, perhaps no sound at all: then nothing is said, and its quality is the worst.

        A speaker encoder that finds nobody in it, with an error, gives no voice.
        """
        if len(wave) < SHORTEST_SECONDS * sample_rate:
            said = dict.fromkeys(self.recognisers, "")
            return Heard(len(wave) / sample_rate, said, None, self.quality and WORST_QUALITY, None, 0.0)
        return self._hear(wave, sample_rate, forgiving=True)

    def _hear(self, wave: Wave, sample_rate: int, forgiving: bool = False) -> Heard:
        transcripts = {
            name: str(ask("--recogniser", recognise, wave, sample_rate)) for name, recognise in self.recognisers.items()
        }
        voice = None
        if self.speaker:
            try:
                voice = np.asarray(ask("--speaker", self.speaker, wave, sample_rate))
            except MimoError:
                if not forgiving:
                    raise
        quality = float(ask("--quality", self.quality, wave, sample_rate)) if self.quality else None
        track = track_f0(wave, sample_rate)
        voiced = track[~np.isnan(track)]
        f0 = float(np.median(voiced)) if len(voiced) >= 10 else None
        return Heard(len(wave) / sample_rate, transcripts, voice, quality, f0, len(voiced) / max(1, len(track)))


def similarity(one: Heard, other: Heard) -> float:
    """Cosine of two voices; 0 where there is none."""
    if one.voice is None or other.voice is None:
        return 0.0
    found = cosine(one.voice, other.voice)
    return found if found is not None and np.isfinite(found) else 0.0
