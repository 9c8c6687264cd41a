"""Measures the native ops against their plain-torch definitions.

    python bench/run.py [case...] [--device cpu|cuda] [--dtype float32] [--json out.json]

For every case: the results are compared first; then native and reference run in turn, so that a machine whose speed
drifts slows both; the record keeps medians, their ratio, and the share of the machine's own ceiling (matrix product or
copy, measured in the same run). A ratio above 1 means that the native op is faster. A case that fails is recorded with
its error, and the others still run; the exit status is then 1. The record is written after every case.
"""

import argparse
import importlib
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `bench` itself; the packages come from the environment

from bench.case import Case  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help="names or beginnings of names, for instance rvq_encode or log_mel/30s")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="where an op has a choice")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's own)")
    parser.add_argument("--seconds", type=float, default=1.0, help="measuring time per case and side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    return parser.parse_args(argv)


def all_cases(device: str, dtype: torch.dtype, wanted: list[str]) -> Iterator[Case]:
    for path in sorted((ROOT / "bench" / "cases").glob("*.py")):
        try:
            module = importlib.import_module(f"bench.cases.{path.stem}")
        except ModuleNotFoundError as error:  # a bare GPU machine has torch, but not the tokenizer's packages
            print(f"bench/run.py: no cases from {path.name}: {error.name} is not installed", file=sys.stderr)
            continue
        for case in module.cases(device, dtype):
            if not wanted or any(case.name.startswith(name) for name in wanted):
                yield case


class Clock:
    """Times one call in seconds: wall clock on the CPU, events (with a cold L2 cache) on CUDA."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda") if self.cuda else None

    def __call__(self, run: Callable[[], Any]) -> float:
        if self.flush is None:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        self.flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3


def measure(case: Case, clock: Clock, seconds: float) -> tuple[float, float, int]:
    """Medians of native and reference, and the number of pairs of runs behind them."""
    for run in (case.native, case.reference):  # warm-up: caches, plans, allocator
        run()
    native, reference = [], []
    deadline = time.perf_counter() + 2 * seconds
    while len(native) < 5 or (time.perf_counter() < deadline and len(native) < 1000):
        native.append(clock(case.native))
        reference.append(clock(case.reference))
    return statistics.median(native), statistics.median(reference), len(native)


def ceilings(device: str, dtype: torch.dtype, clock: Clock) -> dict[str, float]:
    """The machine at its best: FLOP/s of a large product in `dtype`, bytes/s (read + write) of a large copy."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.zeros((1 << 30 if device == "cuda" else 64 << 20), device=device)
    target = torch.empty_like(source)
    best = {
        "flops": 2 * size**3 / min(clock(lambda: a @ b) for _ in range(8)),
        "bytes": 2 * source.nbytes / min(clock(lambda: target.copy_(source)) for _ in range(8)),
    }
    return best


def machine(device: str) -> dict[str, Any]:
    import mimo_audio_native

    commit = ""
    if shutil.which("git"):
        describe = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "date": time.strftime("%Y-%m-%d"),
        "build": mimo_audio_native.build_info(),
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def time_text(seconds: float) -> str:
    return (
        f"{seconds * 1e6:.1f} us"
        if seconds < 1e-3
        else f"{seconds * 1e3:.2f} ms"
        if seconds < 1
        else f"{seconds:.2f} s"
    )


def share_of_ceiling(case: Case, seconds: float, best: dict[str, float]) -> float | None:
    """The larger share of the two ceilings; above 1 where data stays in a cache or products are in a narrower type."""
    shares = [case.flops / seconds / best["flops"], case.bytes / seconds / best["bytes"]]
    return max(shares) if case.flops or case.bytes else None


@torch.no_grad()
def measured(case: Case, clock: Clock, seconds: float, best: dict[str, float]) -> dict[str, Any]:
    """The case's row of the record. Raises what the case raises."""
    with torch.enable_grad():
        case.check(case.native(), case.reference())
    native, reference, runs = measure(case, clock, seconds)
    row = {
        "case": case.name,
        "native_s": native,
        "reference_s": reference,
        "ratio": reference / native,
        "target": case.cuda_target if clock.cuda else case.target,
        "ceiling_share": share_of_ceiling(case, native, best),
        "runs": runs,
    }
    return row | ({"wanted_s": case.cuda_seconds} if clock.cuda else {})


def row_text(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['case']:40} {row['error']}"
    target, share = row["target"], row["ceiling_share"]
    return (
        f"{row['case']:40} {time_text(row['native_s']):>10} {time_text(row['reference_s']):>10} {row['ratio']:7.2f} "
        f"{f'{target:.1f}' if target else '':>7} {f'{share:.0%}' if share else '':>8}"
    )


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("bench/run.py: --device cuda needs a GPU, and torch sees none", file=sys.stderr)
        return 2
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = DTYPES[arguments.dtype]
    cases = all_cases(arguments.device, dtype, arguments.case)
    if arguments.list:
        print("\n".join(case.name for case in cases))
        return 0
    clock = Clock(arguments.device)
    best = ceilings(arguments.device, dtype, clock)
    about = machine(arguments.device)
    print(f"{about['device']}, {about['threads']} threads, torch {about['torch']}, {arguments.dtype}")
    print(f"ceilings: {best['flops'] / 1e9:.0f} GFLOP/s, {best['bytes'] / 1e9:.1f} GB/s\n")
    print(f"{'case':40} {'native':>10} {'reference':>10} {'ratio':>7} {'target':>7} {'ceiling':>8}")
    rows: list[dict[str, Any]] = []
    record = {"machine": about, "dtype": arguments.dtype, "ceilings": best, "cases": rows}
    for case in cases:
        try:
            row = measured(case, clock, arguments.seconds, best)
        except Exception as error:  # the other cases still count
            message = str(error).strip().split("\n")[0] or "the check failed"
            row = {"case": case.name, "error": f"{type(error).__name__}: {message}"}
        rows.append(row)
        print(row_text(row), flush=True)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    if not rows:
        print(f"bench/run.py: no case matches {' '.join(arguments.case)} (--list shows the names)", file=sys.stderr)
        return 2
    if arguments.json:
        print(f"\nrecord: {arguments.json}")
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
