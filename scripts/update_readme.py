"""Writes the README's speed tables from the records in bench/results (--check: fails if they are out of date).

cpu.json gives the first table, the records of a GPU's targets the second.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
GPU_RECORDS = "nvidia-*-targets-*.json"


def time_text(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    scale, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")
    return f"{seconds * scale:.3g} {unit}"


def cpu_table(record: dict) -> str:
    about = record["machine"]
    lines = ["| case | native | plain torch | ratio |", "|---|---|---|---|"]
    for row in record["cases"]:
        if row["target"] is None and not row["case"].startswith("tokenizer"):
            continue  # the record has every case; the README those that were set a target, and the whole tokenizer
        native, reference = time_text(row["native_s"]), time_text(row["reference_s"])
        lines.append(f"| {row['case']} | {native} | {reference} | {row['ratio']:.1f}x |")
    lines += ["", f"{about['device']}, {about['threads']} threads, torch {about['torch']}, {record['dtype']}."]
    return "\n".join(lines) + "\n"


def gpu_table(records: list[dict]) -> str:
    lines = ["| case | dtype | native | as a CUDA graph | plain torch | ratio |", "|---|---|---|---|---|---|"]
    for record in records:
        for row in record["cases"]:
            if "error" not in row:
                times = (time_text(row[key]) for key in ("native_s", "graph_s", "reference_s"))
                lines.append(f"| {row['case']} | {record['dtype']} | {' | '.join(times)} | {row['ratio']:.1f}x |")
    about = records[0]["machine"]
    lines += ["", f"{about['device']}, torch {about['torch']}, commit {about['commit']}, {about['date']}."]
    return "\n".join(lines) + "\n"


def replaced(text: str, name: str, table: str) -> str:
    head, rest = text.split(f"<!-- {name}:begin -->\n")
    return f"{head}<!-- {name}:begin -->\n{table}<!-- {name}:end -->{rest.split(f'<!-- {name}:end -->')[1]}"


def main() -> int:
    path = ROOT / "README.md"
    readme = path.read_text()
    wanted = replaced(readme, "bench", cpu_table(json.loads((RESULTS / "cpu.json").read_text())))
    wanted = replaced(
        wanted, "gpu", gpu_table([json.loads(file.read_text()) for file in sorted(RESULTS.glob(GPU_RECORDS))])
    )
    if "--check" in sys.argv[1:]:
        if readme != wanted:
            print("README.md: a table is not that of its record; run scripts/update_readme.py", file=sys.stderr)
        return int(readme != wanted)
    path.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
