"""Writes the README's speed table from the record bench/results/cpu.json (--check: fails if it is out of date)."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- bench:begin -->\n", "<!-- bench:end -->"


def time_text(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def table(record: dict) -> str:
    about = record["machine"]
    lines = ["| case | native | plain torch | ratio |", "|---|---|---|---|"]
    for row in record["cases"]:
        if row["target"] is None and not row["case"].startswith("tokenizer"):
            continue  # the record has every case; the README those that were set a target, and the whole tokenizer
        native, reference = time_text(row["native_s"]), time_text(row["reference_s"])
        lines.append(f"| {row['case']} | {native} | {reference} | {row['ratio']:.1f}x |")
    lines += ["", f"{about['device']}, {about['threads']} threads, torch {about['torch']}, {record['dtype']}."]
    return "\n".join(lines) + "\n"


def updated(readme: str, record: dict) -> str:
    head, rest = readme.split(BEGIN)
    return head + BEGIN + table(record) + END + rest.split(END)[1]


def main() -> int:
    path = ROOT / "README.md"
    readme = path.read_text()
    wanted = updated(readme, json.loads((ROOT / "bench" / "results" / "cpu.json").read_text()))
    if "--check" in sys.argv[1:]:
        if readme != wanted:
            print(
                "README.md: the speed table is not that of bench/results/cpu.json; run scripts/update_readme.py",
                file=sys.stderr,
            )
        return int(readme != wanted)
    path.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
