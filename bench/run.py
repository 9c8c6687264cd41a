"""Measures the native ops against their plain-torch definitions.

    python bench/run.py [case...] [--device cpu|cuda] [--dtype float32] [--targets] [--json out.json]

Cases run in the order of the names that are given. For every case: the results are compared first; then native and
reference run in turn, so that a machine whose speed drifts slows both; the record keeps medians, their ratio, and the
share of the machine's own ceiling (matrix product or copy, measured in the same run). A ratio above 1 means that the
native op is faster. On a GPU the record also has the time of the op as a CUDA graph (without the host's launches), that
of torch.compile under a graph where a case has it, and the peak memory. A case that fails is recorded with its error,
and the others still run; the exit status is then 1. The record is written after every case.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `bench` itself; the packages come from the environment

from bench.case import Case  # noqa: E402

H200_BYTES = 4.3e12  # bytes/s of a large copy there: Case.cuda_seconds is scaled to the memory of the GPU at hand
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help="names or beginnings of names, for instance rvq_encode or log_mel/30s")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="where an op has a choice")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's own)")
    parser.add_argument("--seconds", type=float, default=1.0, help="measuring time per case and side")
    parser.add_argument("--targets", action="store_true", help="only cases with a wanted time or ratio on a GPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    return parser.parse_args(argv)


def all_cases(device: str, dtype: torch.dtype, wanted: list[str], targets: bool) -> list[Case]:
    """The cases whose names begin with a wanted one, in the order of these."""
    found: list[Case] = []
    for path in sorted((ROOT / "bench" / "cases").glob("*.py")):
        try:
            module = importlib.import_module(f"bench.cases.{path.stem}")
        except ModuleNotFoundError as error:  # a bare GPU machine has torch, but not the tokenizer's packages
            print(f"bench/run.py: no cases from {path.name}: {error.name} is not installed", file=sys.stderr)
            continue
        found += module.cases(device, dtype)
    if targets:
        found = [case for case in found if case.cuda_seconds or case.cuda_target]
    ordered = [case for name in wanted for case in found if case.name.startswith(name)] if wanted else found
    return list({case.name: case for case in ordered}.values())


class Clock:
    """Times one call in seconds: wall clock on the CPU, events (with a cold L2 cache) on CUDA."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.flush = torch.zeros(64 << 20, device="cuda") if self.cuda else None

    def __call__(self, run: Callable[[], Any]) -> float:
        if self.flush is None:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        self.flush.sum()  # read, not written: nothing is left to be written back while `run` is timed
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3


def measure(sides: dict[str, Callable[[], Any]], clock: Clock, seconds: float) -> tuple[dict[str, float], int]:
    """Medians of all sides, run in turns, and the number of runs behind each."""
    for run in sides.values():  # warm-up: caches, plans, allocator
        run()
    times: dict[str, list[float]] = {side: [] for side in sides}
    deadline, runs = time.perf_counter() + len(sides) * seconds, 0
    while runs < 5 or (time.perf_counter() < deadline and runs < 1000):
        for side, run in sides.items():
            times[side].append(clock(run))
        runs += 1
    return {side: statistics.median(values) for side, values in times.items()}, runs


def captured(run: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph: what the GPU needs for it, whatever the host does."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class Ceilings:
    """The machine at its best: FLOP/s of a large product in a dtype, bytes/s (read + write) of a large copy."""

    def __init__(self, device: str, clock: Clock) -> None:
        self.device, self.clock = device, clock
        source = torch.zeros((1 << 30 if device == "cuda" else 64 << 20), device=device)
        target = torch.empty_like(source)
        self.bytes = 2 * source.nbytes / min(clock(lambda: target.copy_(source)) for _ in range(8))
        self._flops: dict[torch.dtype, float] = {}

    def flops(self, dtype: torch.dtype) -> float:
        if dtype not in self._flops:
            size = 8192 if self.device == "cuda" else 2048
            a, b = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))
            self._flops[dtype] = 2 * size**3 / min(self.clock(lambda: a @ b) for _ in range(8))
        return self._flops[dtype]


def machine(device: str) -> dict[str, Any]:
    import mimo_audio_native

    commit = os.environ.get("MIMO_REVISION", "")  # where only the files travel, who sends them says what they are
    if not commit and shutil.which("git"):
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


def share_of_ceiling(case: Case, seconds: float, best: Ceilings, dtype: torch.dtype) -> float | None:
    """The larger share of the two ceilings; above 1 where data stays in a cache."""
    shares = [case.bytes / seconds / best.bytes]
    if case.flops:
        shares.append(case.flops / seconds / best.flops(case.products or dtype))
    return max(shares) if case.flops or case.bytes else None


@torch.no_grad()
def measured(case: Case, clock: Clock, seconds: float, best: Ceilings, dtype: torch.dtype) -> dict[str, Any]:
    """The case's row of the record. Raises what the case raises."""
    if clock.cuda:
        torch.cuda.reset_peak_memory_stats()
    with torch.enable_grad():
        ours = case.native()
    peak = torch.cuda.max_memory_allocated() if clock.cuda else None
    with torch.enable_grad():
        case.check(ours, case.reference())
    del ours
    sides = {"native": case.native, "reference": case.reference}
    notes: dict[str, str] = {}
    if clock.cuda:
        for side, make in (("graph", lambda: captured(case.capture or case.native)), ("compiled", case.compiled)):
            try:
                if side == "graph" and case.graph:
                    sides[side] = make()
                elif side == "compiled" and case.compiled:
                    case.compiled()
                    sides[side] = case.compiled
            except Exception as error:  # a side that cannot run is no reason to lose the others
                notes[f"{side}_error"] = f"{type(error).__name__}: {str(error).strip()[:200]}"
    medians, runs = measure(sides, clock, seconds)
    native = medians["native"]
    row = {
        "case": case.name,
        "native_s": native,
        "reference_s": medians["reference"],
        "ratio": medians["reference"] / native,
        "target": case.cuda_target if clock.cuda else case.target,
        "ceiling_share": share_of_ceiling(case, native, best, dtype),
        "runs": runs,
    }
    if case.audio:
        row["audio_seconds_per_s"] = case.audio / min(native, medians.get("graph", native))
    if not clock.cuda:
        return row
    wanted = case.cuda_seconds and case.cuda_seconds * max(1.0, H200_BYTES / best.bytes)
    return row | {
        "wanted_s": wanted,
        "graph_s": medians.get("graph"),
        "compiled_s": medians.get("compiled"),
        "peak_bytes": peak,
        **notes,
    }


def row_text(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['case']:40} {row['error']}"
    target, share = row["target"], row["ceiling_share"]
    return (
        f"{row['case']:40} {time_text(row['native_s']):>10} {time_text(row['reference_s']):>10} {row['ratio']:7.2f} "
        f"{f'{target:.1f}' if target else '':>7} {f'{share:.0%}' if share else '':>8}"
        + "".join(f"  {side} {time_text(row[side + '_s'])}" for side in ("graph", "compiled") if row.get(side + "_s"))
    )


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("bench/run.py: --device cuda needs a GPU, and torch sees none", file=sys.stderr)
        return 2
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = DTYPES[arguments.dtype]
    cases = all_cases(arguments.device, dtype, arguments.case, arguments.targets)
    if arguments.list:
        print("\n".join(case.name for case in cases))
        return 0
    clock = Clock(arguments.device)
    best = Ceilings(arguments.device, clock)
    about = machine(arguments.device)
    print(f"{about['device']}, {about['threads']} threads, torch {about['torch']}, {arguments.dtype}")
    print(f"ceilings: {best.flops(dtype) / 1e9:.0f} GFLOP/s, {best.bytes / 1e9:.1f} GB/s\n")
    print(f"{'case':40} {'native':>10} {'reference':>10} {'ratio':>7} {'target':>7} {'ceiling':>8}")
    rows: list[dict[str, Any]] = []
    ceilings = {"flops": best.flops(dtype), "bytes": best.bytes}
    record = {"machine": about, "dtype": arguments.dtype, "seed": 0, "ceilings": ceilings, "cases": rows}
    for case in cases:
        try:
            row = measured(case, clock, arguments.seconds, best, dtype)
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
