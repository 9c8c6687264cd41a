"""Prints the table that scripts/gpu_check.sh ends with: every step's outcome, then every op and size of the records.

    python scripts/gpu_table.py STEPS [RECORD.json...]

STEPS has a line per step: name, "ok", "FAILED" or "not run", seconds and a note, between tabs. A record is one of
bench/run.py; others are passed over. `of limit` is the share of the machine's own ceiling, `vs torch` the ratio to the
plain-torch definition, beside each what the project wants; `graph` is the time as a CUDA graph, `compiled` that of
torch.compile under one, `audio` seconds of sound per second. Exit status 1 if a step failed or a case has an error; a
target that is missed is marked, and no failure.
"""

import json
import sys
from pathlib import Path
from typing import Any


def time_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    scale, unit = (1e6, "us") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1, "s")
    return f"{seconds * scale:.3g} {unit}"


def verdict(row: dict[str, Any]) -> str:
    """ "" where nothing is wanted, else whether all of it is there."""
    wanted = [
        (row["target"], lambda target: row["ratio"] >= target),
        (row["wanted_s"], lambda seconds: row["native_s"] <= seconds),
    ]
    met = [reached(value) for value, reached in wanted if value is not None]
    return "" if not met else "met" if all(met) else "MISSED"


def case_cells(row: dict[str, Any], dtype: str) -> list[str]:
    if "error" in row:
        return [row["case"], dtype, *[""] * 8, f"ERROR {row['error']}"]
    share, target = row["ceiling_share"], row["target"]
    return [
        row["case"],
        dtype,
        time_text(row["native_s"]),
        time_text(row["wanted_s"]),
        "" if share is None else f"{share:.0%}",
        f"{row['ratio']:.2f}x",
        "" if target is None else f"{target:.1f}x",
        time_text(row.get("graph_s")),
        time_text(row.get("compiled_s")),
        f"{row['audio_seconds_per_s']:.0f}" if row.get("audio_seconds_per_s") else "",
        verdict(row),
    ]


def aligned(rows: list[list[str]], left: int) -> list[str]:
    """Lines of a table, its first `left` columns and its last to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if i < left or i == last else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def table(steps: list[list[str]], records: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """Lines to print, and whether all is well."""
    lines = aligned([["step", "outcome", "seconds", "note"], *steps], 2)
    well = all(step[1] != "FAILED" for step in steps)
    rows = []
    for record in records:
        about, best = record["machine"], record["ceilings"]
        ceilings = f"{best['flops'] / 1e12:.0f} TFLOP/s, {best['bytes'] / 1e12:.2f} TB/s"
        lines += [
            "",
            f"{about['device']}, {record['dtype']}: {ceilings}, "
            f"torch {about['torch']}, nvcc {about['build']['cuda']}, {about['build']['git_revision']}",
        ]
        rows += [case_cells(row, record["dtype"]) for row in record["cases"]]
        well = well and not any("error" in row for row in record["cases"])
    if rows:
        head = [
            "op and size",
            "dtype",
            "time",
            "wanted",
            "of limit",
            "vs torch",
            "wanted",
            "graph",
            "compiled",
            "audio",
            "",
        ]
        lines += ["", *aligned([head, *rows], 2)]
    return lines, well


def main() -> int:
    steps = [line.split("\t") for line in Path(sys.argv[1]).read_text().splitlines()]
    records = [json.loads(Path(name).read_text()) for name in sys.argv[2:]]
    records = [record for record in records if "ceilings" in record]
    lines, well = table(steps, records)
    print("\n".join(lines))
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
