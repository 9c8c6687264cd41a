"""Where the time of the GPU goes: every kernel of one call of each benchmark case, and the gaps between them.

    python bench/kernel_times.py [case...] [--dtype bfloat16] [--json out.json]

Without names: the cases with a wanted time or ratio. torch.profiler (CUPTI) times the kernels of one call after a
warm-up: name, launches, microseconds each, share of all; `gaps` is the time from the first start to the last end in
which no kernel ran, where the host or a dependency held the GPU up.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `bench` itself; the packages come from the environment

from bench.case import Case  # noqa: E402
from bench.run import DTYPES, all_cases, machine  # noqa: E402


@torch.no_grad()
def kernels(case: Case) -> dict[str, Any]:
    """One call's kernels, the longest first, and its span in microseconds."""
    for _ in range(2):
        case.native()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        case.native()
        torch.cuda.synchronize()
    events = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    found: dict[str, list[float]] = {}
    for event in events:
        found.setdefault(event.name, []).append(event.time_range.elapsed_us())
    busy = sum(map(sum, found.values()))
    span = max(e.time_range.end for e in events) - min(e.time_range.start for e in events) if events else 0.0
    rows = [
        {"kernel": short(name), "launches": len(times), "us_each": sum(times) / len(times), "share": sum(times) / busy}
        for name, times in sorted(found.items(), key=lambda item: -sum(item[1]))
    ]
    return {"case": case.name, "span_us": span, "busy_us": busy, "launches": len(events), "kernels": rows}


def short(name: str) -> str:
    """A kernel's name without its parameters."""
    plain = name.replace("(anonymous namespace)::", "").replace("mimo::cuda::", "").removeprefix("void ")
    return plain.split("(")[0][:90]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help="names or beginnings of names (default: cases with a target)")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16", help="where an op has a choice")
    parser.add_argument("--most", type=int, default=8, help="kernels to print per case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of them")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("bench/kernel_times.py: needs a GPU, and torch sees none", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    failed = False
    for case in all_cases("cuda", DTYPES[arguments.dtype], arguments.case, not arguments.case):
        try:
            row = kernels(case)
        except Exception as error:  # the other cases still count
            rows.append({"case": case.name, "error": f"{type(error).__name__}: {str(error).strip()[:200]}"})
            print(f"{case.name}: {rows[-1]['error']}", flush=True)
            failed = True
            continue
        rows.append(row)
        gaps = row["span_us"] - row["busy_us"]
        print(f"{case.name}: {row['span_us']:.0f} us, {row['launches']} launches, gaps {gaps:.0f} us")
        for kernel in row["kernels"][: arguments.most]:
            times = f"{kernel['share']:5.1%} {kernel['launches']:5} x {kernel['us_each']:8.1f} us"
            print(f"  {times}  {kernel['kernel']}")
        sys.stdout.flush()
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            record = {"machine": machine("cuda"), "dtype": arguments.dtype, "cases": rows}
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return int(failed or not rows)


if __name__ == "__main__":
    sys.exit(main())
