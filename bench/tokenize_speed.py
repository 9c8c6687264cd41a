"""Measures `mimo-audio data tokenize`: hours of sound per hour, FLAC decoding included, and memory.

    python bench/tokenize_speed.py [--model nano] [--hours 1] [--workers 1 2] [--json out.json]

The recordings are made here: noises with the loudness of speech, 1 to 8 s, FLAC at 24 kHz (and a fifth at 16 kHz, which
is resampled). Each number of workers runs in turn, three times; medians. `start` is the time of a run over a single
recording, worker processes included: it is part of the hours per hour, and `steady` is without it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `bench` itself; the packages come from the environment

from bench.run import machine  # noqa: E402

TRIES = 3


def make(folder: Path, hours: float) -> Path:
    """Recordings of so many hours and their manifest."""
    rng, seconds, lines = np.random.default_rng(0), 0.0, []
    while seconds < hours * 3600:
        length, rate = rng.uniform(1, 8), 16000 if rng.random() < 0.2 else 24000
        envelope = np.repeat(rng.uniform(0.005, 0.1, int(length * 8) + 1), rate // 8)[: int(length * rate)]
        wave = np.cumsum(envelope * rng.normal(size=len(envelope)))  # energy falls with frequency, as in speech
        wave -= np.convolve(wave, np.ones(200) / 200, "same")
        soundfile.write(folder / f"{len(lines)}.flac", 0.5 * wave / max(1e-6, abs(wave).max()), rate)
        lines.append(json.dumps({"audio": f"{len(lines)}.flac", "text": "noise"}))
        seconds += length
    (folder / "one.jsonl").write_text(lines[0])
    (folder / "all.jsonl").write_text("\n".join(lines))
    return folder / "all.jsonl"


def seconds_of(manifest: Path, model: str, workers: int) -> float:
    """Seconds that the command takes for a new set."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "mimo_audio", "data", "tokenize", str(manifest), "--out", f"{out}/set"]
        start = time.perf_counter()
        subprocess.run([*command, "--model", model, "--workers", str(workers)], check=True, stdout=sys.stderr)
        return time.perf_counter() - start


def measure(hours: float, model: str, workers: list[int]) -> list[dict[str, Any]]:
    """A row per number of workers."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = make(Path(folder), hours)
        one = manifest.with_name("one.jsonl")
        runs = [{n: (seconds_of(one, model, n), seconds_of(manifest, model, n)) for n in workers} for _ in range(TRIES)]
    rows = []
    for count in workers:
        start, whole = (statistics.median(run[count][i] for run in runs) for i in (0, 1))
        rows.append(
            {
                "workers": count,
                "hours_per_hour": round(hours * 3600 / whole, 1),
                "steady": round(hours * 3600 / max(1e-9, whole - start), 1),
                "start_seconds": round(start, 2),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.hours, arguments.model, arguments.workers)
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest process
    record = {"machine": machine("cpu"), "hours": arguments.hours, "peak_mb": round(megabytes), "rows": rows}
    for row in rows:
        print(" ".join(f"{name} {value}" for name, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
