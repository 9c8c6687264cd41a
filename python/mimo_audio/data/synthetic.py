"""Speech for the nano recipe: sentences spoken by espeak-ng in many voices, and strings of real recorded digits.

    python -m mimo_audio.data.synthetic --out data/nano --digits recordings.tar.xz

Writes 24 kHz mono 16-bit WAV files and one manifest.jsonl per split ({"audio", "text", "voice"} per line). The
held-out splits have only voices and recordings that the training splits do not have.
"""

import argparse
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mimo_audio.data import voices
from mimo_audio.data.sentences import DIGITS, command, sentence
from mimo_audio.data.voices import HELD_OUT, espeak
from mimo_audio.errors import AudioError, MimoError

SAMPLE_RATE = 24000
PEAK = 0.6
ACCENTS = ("en-us", "en-us", *espeak.ACCENTS)  # American three times as often as any other
HELD_OUT_VARIANTS = HELD_OUT["espeak"]
HELD_OUT_SPEAKER, HELD_OUT_INDICES = (
    "theo",
    range(5),
)  # of the digits: one whole speaker, and the customary test part of every other


@dataclass(frozen=True)
class Line:
    """One thing to say: text, an espeak-ng voice name, words per minute and pitch 0-99."""

    text: str
    voice: str
    speed: int
    pitch: int


def training_lines(seed: int, count: int) -> Iterator[Line]:
    """Sentences in voices, accents, rates and pitches drawn at random, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        voice = f"{rng.choice(ACCENTS)}+{rng.choice(espeak.VARIANTS)}"
        yield Line(sentence(rng), voice, rng.randint(120, 210), rng.randint(15, 85))


def held_out_lines(seed: int, count: int, text: Callable[[random.Random], str] = sentence) -> Iterator[Line]:
    """Sentences in voices that training never hears, at an ordinary rate and pitch."""
    rng = random.Random(seed)
    for i in range(count):
        yield Line(text(rng), f"en-us+{HELD_OUT_VARIANTS[i % len(HELD_OUT_VARIANTS)]}", rng.randint(140, 180), 50)


def speak(line: Line) -> NDArray[np.float32]:
    """The line as speech [N] at 24 kHz, trimmed, peak 0.6. Raises VoiceError if espeak-ng is missing or fails."""
    voice = f"espeak/{line.voice}:{line.pitch}"
    wave, rate = voices.speak(line.text, voice, line.speed / espeak.WORDS_PER_MINUTE)
    loud = np.flatnonzero(np.abs(wave) > 0.005)
    wave = wave[max(0, loud[0] - int(0.03 * rate)) : loud[-1] + int(0.06 * rate)]
    return normalise(soxr.resample(wave, rate, SAMPLE_RATE))


def normalise(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """The wave scaled to a peak of 0.6."""
    return (wave * (PEAK / max(float(np.abs(wave).max()), 1e-6))).astype(np.float32)


def read_digits(archive: Path) -> dict[str, dict[str, list[tuple[int, NDArray[np.float32]]]]]:
    """The Free Spoken Digit Dataset ({digit}_{speaker}_{index}.wav in a tar): split -> speaker -> digit, 8 kHz wave."""
    splits: dict[str, dict[str, list[tuple[int, NDArray[np.float32]]]]] = {"train": {}, "held_out": {}}
    waves = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:  # in the archive's own order: a compressed tar cannot seek back
                file = tar.extractfile(member) if member.name.endswith(".wav") else None
                if file is not None:
                    waves[Path(member.name).stem] = soundfile.read(io.BytesIO(file.read()), dtype="float32")[0]
    except (OSError, tarfile.TarError, soundfile.SoundFileError) as error:
        raise AudioError(f"--digits {archive}: expected a tar archive of WAV files: {error}") from error
    for name in sorted(waves):
        digit, speaker, index = name.split("_")
        split = "held_out" if speaker == HELD_OUT_SPEAKER or int(index) in HELD_OUT_INDICES else "train"
        splits[split].setdefault(speaker, []).append((int(digit), waves[name]))
    return splits


def digit_strings(
    speakers: dict[str, list[tuple[int, NDArray[np.float32]]]], seed: int, count: int, stretch: float
) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Strings of 2-5 digits of one speaker at 24 kHz: (text, voice, wave).

    `stretch` 0.2 plays each string between 1 / 1.2 and 1.2 times as fast: other pitches and formants from few speakers.
    """
    rng = random.Random(seed)
    for _ in range(count):
        speaker = rng.choice(sorted(speakers))
        chosen = [rng.choice(speakers[speaker]) for _ in range(rng.randint(2, 5))]
        gap = np.zeros(400, np.float32)
        wave = np.concatenate([part for _, digit in chosen for part in (normalise(digit), gap)])
        rate = 8000 * (1 + stretch) ** rng.uniform(-1, 1)
        yield (
            " ".join(DIGITS[d] for d, _ in chosen),
            f"digits-{speaker}",
            normalise(soxr.resample(wave, rate, SAMPLE_RATE)),
        )


def write_split(folder: Path, items: Iterator[tuple[str, str, NDArray[np.float32]]]) -> float:
    """Writes the waves and manifest.jsonl of (text, voice, wave) items; returns minutes of audio."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = 0
    with open(folder / "manifest.jsonl", "w", encoding="utf-8") as manifest:
        for i, (text, voice, wave) in enumerate(items):
            soundfile.write(folder / f"{i:05d}.wav", wave, SAMPLE_RATE, subtype="PCM_16")
            manifest.write(json.dumps({"audio": f"{i:05d}.wav", "text": text, "voice": voice}) + "\n")
            samples += len(wave)
    return samples / SAMPLE_RATE / 60


def _spoken(lines: Iterator[Line]) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    with ThreadPoolExecutor(2) as pool:
        todo = list(lines)
        for line, wave in zip(todo, pool.map(speak, todo), strict=True):
            yield line.text, line.voice, wave


def main() -> None:
    """Renders below --out the splits of espeak-ng and, given the archive, those of recorded digits."""
    parser = argparse.ArgumentParser(description="Render the nano recipe's training speech.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4000, help="synthetic training sentences")
    parser.add_argument("--held-out", type=int, default=120, help="recordings of each held-out split")
    parser.add_argument("--digits", type=Path, help="tar archive of the Free Spoken Digit Dataset")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    splits = {
        "train": _spoken(training_lines(args.seed, args.count)),
        "held_out_voices": _spoken(held_out_lines(args.seed + 1, args.held_out)),
        "held_out_commands": _spoken(held_out_lines(args.seed + 1, args.held_out, command)),
    }
    if args.digits:
        digits = read_digits(args.digits)
        theo = {HELD_OUT_SPEAKER: digits["held_out"].pop(HELD_OUT_SPEAKER)}
        splits["digits"] = digit_strings(digits["train"], args.seed, 1200, stretch=0.2)
        splits["held_out_digits"] = digit_strings(digits["held_out"], args.seed, args.held_out, stretch=0)
        splits["held_out_speaker"] = digit_strings(theo, args.seed, args.held_out, stretch=0)
    for name, items in splits.items():
        print(f"{name}: {write_split(args.out / name, items):.1f} min", flush=True)


if __name__ == "__main__":
    try:
        main()
    except MimoError as error:
        raise SystemExit(f"error: {error}") from None
