"""Measures streaming decode: time per step for 1 to 64 streams, beside re-decoding, and ten minutes of one stream.

    python bench/streaming_speed.py [--model nano|released|FOLDER] [--minutes 10] [--json out.json]

"released" is the released size with random weights. Re-decoding is the published scheme in its steady state: for every
chunk it decodes 250 frames and the new ones. Both run in turn, so that a machine whose speed drifts slows both; times
are medians, `late` is the slowest of the last hundred steps, and the real-time factor is that of all streams together.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `bench` itself; the packages come from the environment

from bench.cases.tokenizer import RELEASED  # noqa: E402
from bench.run import machine  # noqa: E402
from mimo_audio.tokenizer import AudioTokenizer  # noqa: E402
from mimo_audio.tokenizer.streaming import StreamDecoder  # noqa: E402
from mimo_audio.tokenizer.streaming.prior import Statistics  # noqa: E402
from mimo_audio.tokenizer.streaming.redecode import LEFT  # noqa: E402

STEPS, BATCHES = (1, 4), (1, 4, 16, 64)
CODEBOOKS = 8
PRIOR = [Statistics(0.0, 1.0)] * 2  # its values cost nothing


def load(name: str) -> AudioTokenizer:
    if name != "released":
        return AudioTokenizer.from_pretrained(name)
    torch.manual_seed(0)
    return AudioTokenizer(RELEASED).eval()


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def random_codes(tokenizer: AudioTokenizer, frames: int) -> torch.Tensor:
    return torch.randint(0, min(tokenizer.config.codebook_size[:CODEBOOKS]), (CODEBOOKS, frames))


def steps(tokenizer: AudioTokenizer, step: int, batch: int, budget: float) -> dict[str, Any]:
    """Medians of a step of all streams and of re-decoding as much."""
    stream = StreamDecoder(tokenizer, batch, None, CODEBOOKS, step, prior=PRIOR)
    chunk, context = random_codes(tokenizer, step), random_codes(tokenizer, LEFT + step)
    stream.push([chunk] * batch)
    ours: list[float] = []
    theirs: list[float] = []
    deadline = time.perf_counter() + budget
    while not theirs or time.perf_counter() < deadline:
        theirs.append(seconds(lambda: tokenizer.decode_batch([context] * batch)))
        ours += [seconds(lambda: stream.push([chunk] * batch)) for _ in range(10)]
    median, sound = statistics.median(ours), step / tokenizer.config.frame_rate
    row = {
        "step": step,
        "streams": batch,
        "step_s": median,
        "late_s": max(ours[-100:]),
        "rtf": median / sound,
        "redecode_s": statistics.median(theirs),
        "state_bytes_per_stream": stream.state.nbytes // batch,
        "runs": [len(ours), len(theirs)],
    }
    print({key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    return row


def long_stream(tokenizer: AudioTokenizer, minutes: int, step: int) -> list[dict[str, Any]]:
    """Time per step and bytes of state, minute by minute."""
    stream = StreamDecoder(tokenizer, 1, None, CODEBOOKS, step, prior=PRIOR)
    chunk, rows = random_codes(tokenizer, step), []
    for minute in range(1, minutes + 1):
        times = [seconds(lambda: stream.push(chunk)) for _ in range(int(60 * tokenizer.config.frame_rate) // step)]
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        rows.append(
            {
                "minute": minute,
                "step_s": statistics.median(times),
                "state_bytes": stream.state.nbytes,
                "resident_bytes": resident,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--streams", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time per row")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    tokenizer = load(arguments.model)
    record = {
        "machine": machine("cpu"),
        "model": arguments.model,
        "parameters": sum(p.numel() for p in tokenizer.parameters()),
        "seed": 0,  # of codes, and of the released size's weights
        "steps": [steps(tokenizer, n, batch, arguments.seconds) for n in STEPS for batch in arguments.streams],
        "long": {"step": STEPS[-1], "minutes": long_stream(tokenizer, arguments.minutes, STEPS[-1])},
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
