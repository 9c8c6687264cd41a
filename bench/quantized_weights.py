"""Measures what quantised weights cost and give on a CPU, at the full model's shapes, and writes one record.

    python bench/quantized_weights.py [--threads 1] [--torchao] [--json bench/results/quantized_weights.json]

1. products: ours, torch's own weight-only products (int8 and int4, as torchao's CPU layouts call them) and bfloat16
2. steps: backbone_step (4 of the 36 layers) and patch_decode (all 16) in bfloat16, int8 and int4, for 1 and 8 rows, and
   from them the time of a whole patch; the share of the memory's read speed, measured in the same run
3. the matrices of a call are more bytes than caches hold; medians of runs in turns

Runs in about 4 minutes and 6 GB.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mimo_audio_native as mn  # noqa: E402
from bench.cases.patch_decode import weights as patch_weights  # noqa: E402
from mimo_audio.evaluate.environment import environment  # noqa: E402

SHAPES, BATCHES = ((4096, 4096), (11008, 4096), (1024, 4096)), (1, 8)
FORMATS = {"int8": (8, 32), "int4": (4, 32)}
LAYERS, ALL_LAYERS, DIM, FFN, HEADS, KV_HEADS, WIDTH, LENGTH = 4, 36, 4096, 11008, 32, 8, 128, 100
HEAD_ROWS = 151680  # of lm_head, which keeps 8 bits


def in_turns(sides: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Median seconds of every side."""
    for run in sides.values():
        run()
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(runs):
        for side, run in sides.items():
            start = time.perf_counter()
            run()
            times[side].append(time.perf_counter() - start)
    return {side: statistics.median(values) for side, values in times.items()}


def one_after_the_other(function: Callable[[Tensor], Any], weights: Sequence[Tensor]) -> Callable[[], Any]:
    """A call meets the next weight."""
    turn = itertools.cycle(weights)
    return lambda: function(next(turn))


def read_speed() -> float:
    """Bytes per second of a sum over 512 MB, the best of several."""
    block, best = torch.ones(128 << 20), 0.0
    for _ in range(10):
        start = time.perf_counter()
        block.sum()
        best = max(best, block.nbytes / (time.perf_counter() - start))
    return best


@torch.no_grad()
def products(rows: int, columns: int, batch: int, runs: int) -> dict[str, float]:
    """Median seconds of y = x W^T by each implementation."""
    count = max(3, -(-(96 << 20) // (rows * columns)))
    plain = [torch.randn(rows, columns).bfloat16() / columns**0.5 for _ in range(count)]
    x, row_scales = torch.randn(batch, columns).bfloat16(), torch.rand(rows).bfloat16()
    numbers = [torch.randint(-127, 128, (rows, columns), dtype=torch.int8) for _ in range(count)]
    packed4 = [
        torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.randint(0, 16, (rows, columns), dtype=torch.int32), 1)
        for _ in range(2 * count)
    ]
    scales4 = torch.rand(columns // 32, rows, 2).bfloat16()
    sides: dict[str, Callable[[], Any]] = {
        "bfloat16 (torch)": one_after_the_other(lambda w: F.linear(x, w), plain),
        "int8 (torch _weight_int8pack_mm)": one_after_the_other(
            lambda w: torch._weight_int8pack_mm(x, w, row_scales), numbers
        ),
        "int4, group 32 (torch _weight_int4pack_mm_for_cpu)": one_after_the_other(
            lambda w: torch.ops.aten._weight_int4pack_mm_for_cpu(x, w, 32, scales4), packed4
        ),
    }
    for kind, (bits, group) in FORMATS.items():
        packed = [mn.quantize_weight(w, bits, group) for w in plain] * 2
        sides[f"{kind} (ours)"] = one_after_the_other(lambda w: mn.quantized_linear(x, w), packed)
    return in_turns(sides, runs)


def torchao_layers(rows: int, columns: int, batch: int, runs: int) -> dict[str, float]:
    """Median seconds of torchao's quantised nn.Linear, in bfloat16."""
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    sides: dict[str, Callable[[], Any]] = {}
    x = torch.randn(batch, columns).bfloat16()
    configs = {
        "int8 (torchao)": lambda: Int8WeightOnlyConfig(),
        "int4, group 32 (torchao)": lambda: Int4WeightOnlyConfig(group_size=32, int4_packing_format="opaque"),
    }
    for name, config in configs.items():
        layers = [torch.nn.Linear(columns, rows, bias=False).bfloat16() for _ in range(4)]
        for layer in layers:
            quantize_(layer, config())
        turn = itertools.cycle(layers)
        sides[name] = lambda turn=turn: next(turn)(x)
    with torch.no_grad():
        return in_turns(sides, runs)


def backbone_layers() -> list[Tensor]:
    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns).bfloat16() * columns**-0.5

    layers, queries, keys = [], HEADS * WIDTH, KV_HEADS * WIDTH
    for _ in range(LAYERS):
        norm = torch.ones(DIM).bfloat16()
        layers += [norm, matrix(queries, DIM), torch.zeros(queries).bfloat16()]
        layers += [t for _ in "kv" for t in (matrix(keys, DIM), torch.zeros(keys).bfloat16())]
        layers += [matrix(DIM, queries), norm, matrix(FFN, DIM), matrix(FFN, DIM), matrix(DIM, FFN)]
    return layers


def small(layers: list[Tensor], kind: str) -> list[Tensor]:
    return [mn.quantize_weight(t, *FORMATS[kind]) if kind in FORMATS and t.dim() == 2 else t for t in layers]


@torch.no_grad()
def steps(batch: int, runs: int) -> dict[str, dict[str, float]]:
    """Median seconds of a backbone step (LAYERS layers), patch_decode and lm_head, by format."""
    backbone, patch = backbone_layers(), patch_weights("full", "cpu", torch.bfloat16)
    head = torch.randn(HEAD_ROWS // 16, DIM).bfloat16()
    hidden, local = torch.randn(batch, DIM).bfloat16(), torch.randn(batch, 1024).bfloat16()
    cache = torch.randn(LAYERS, 2, batch, KV_HEADS, LENGTH + 1, WIDTH).bfloat16()
    angles = torch.arange(LENGTH + 1)[:, None] * 640000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    row = torch.arange(batch)
    sampler = (row * 0.0, (row * 0).int(), row * 0.0 + 1, row, row)
    sides: dict[str, Callable[[], Any]] = {}
    size: dict[str, float] = {}
    for kind in ("bfloat16", *FORMATS):
        ours, theirs, norm = small(backbone, kind), small(patch[0], kind), backbone[0]
        top = head if kind == "bfloat16" else mn.quantize_weight(head, 8)
        linear = F.linear if kind == "bfloat16" else mn.quantized_linear
        sides[f"{kind}/backbone_step"] = lambda ours=ours, norm=norm: mn.backbone_step(
            hidden, ours, norm, cache, LENGTH, None, angles.cos(), angles.sin(), HEADS, 1e-6
        )
        sides[f"{kind}/patch_decode"] = lambda theirs=theirs: mn.patch_decode(local, theirs, *patch[1:], *sampler)
        sides[f"{kind}/lm_head"] = lambda linear=linear, top=top: linear(hidden, top)
        size[f"{kind}/backbone_step"] = sum(t.nbytes for t in ours)
        size[f"{kind}/patch_decode"] = 11 * sum(t.nbytes for t in theirs)
        size[f"{kind}/lm_head"] = top.nbytes
    seconds = in_turns(sides, runs)
    found: dict[str, dict[str, float]] = {}
    for kind in ("bfloat16", *FORMATS):
        parts = {
            name: (seconds[f"{kind}/{name}"], size[f"{kind}/{name}"])
            for name in ("backbone_step", "patch_decode", "lm_head")
        }
        times = {"backbone_step": ALL_LAYERS / LAYERS, "patch_decode": 1.0, "lm_head": 16.0}
        found[kind] = {f"{name}_s": value[0] for name, value in parts.items()}
        found[kind] |= {f"{name}_bytes_per_s": value[1] / value[0] for name, value in parts.items()}
        found[kind]["patch_s"] = sum(value[0] * times[name] for name, value in parts.items())
        found[kind]["patch_bytes_per_s"] = (
            sum(value[1] * times[name] for name, value in parts.items()) / found[kind]["patch_s"]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="(default: torch's own)")
    parser.add_argument("--runs", type=int, default=11, help="behind every median (default: %(default)s)")
    parser.add_argument("--torchao", action="store_true", help="measure torchao's layers as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    record: dict[str, Any] = {"environment": environment("cpu"), "load_before": os.getloadavg()[0]}
    record["read_bytes_per_s"] = read_speed()
    where = record["environment"]
    print(f"{where['device']}, {where['threads']} threads, load {record['load_before']:.1f}")
    print(f"read {record['read_bytes_per_s'] / 1e9:.1f} GB/s")
    record["products"] = []
    for rows, columns in SHAPES:
        for batch in BATCHES:
            seconds = products(rows, columns, batch, arguments.runs)
            if arguments.torchao:
                seconds |= torchao_layers(rows, columns, batch, arguments.runs)
            record["products"].append({"rows": rows, "columns": columns, "batch": batch, "seconds": seconds})
            print(f"{rows} x {columns}, {batch} rows: ", *(f"\n    {k}: {v * 1e3:.2f} ms" for k, v in seconds.items()))
    record["steps"] = {str(batch): steps(batch, max(5, arguments.runs // 2)) for batch in BATCHES}
    plain = record["steps"]["1"]["bfloat16"]["patch_s"]
    for batch, kinds in record["steps"].items():
        for kind, found in kinds.items():
            share = found["patch_bytes_per_s"] / record["read_bytes_per_s"]
            found["times_as_fast_as_bfloat16"] = kinds["bfloat16"]["patch_s"] / found["patch_s"]
            found["times_batch_1"] = found["patch_s"] / record["steps"]["1"][kind]["patch_s"]
            found["share_of_read_speed"] = share
            print(
                f"batch {batch}, {kind}: a patch {found['patch_s'] * 1e3:.0f} ms, "
                f"{found['times_as_fast_as_bfloat16']:.2f} x bfloat16, "
                f"{found['times_batch_1']:.2f} x batch 1, {share:.0%} of the read speed"
            )
    record["read_bytes_per_s_after"], record["load_after"] = read_speed(), os.getloadavg()[0]
    print(f"bfloat16, batch 1: {plain * 1e3:.0f} ms; read {record['read_bytes_per_s_after'] / 1e9:.1f} GB/s after")
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
