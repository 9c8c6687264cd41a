"""Losses and scores of the nano language model against the audio it was trained on: the report's figure 1, small.

    python bench/nano_curve.py --stage joint=runs/nano/joint/log.jsonl:1024 --score joint:4500=scores/scores.json
    python bench/nano_curve.py --plot        # docs/nano.svg from the record

A stage is the journal of a run and the positions of its steps (rows x context x micro_batches); they follow one
another. A score is what `mimo-audio eval speech` wrote for the model after that step of that stage.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mimo_audio.evaluate.environment import environment

ROOT = Path(__file__).resolve().parent.parent
RECORD, PICTURE = ROOT / "bench" / "results" / "nano_lm.json", ROOT / "docs" / "nano.svg"
EVERY = 250  # steps between points of the losses


def losses(journal: Path, positions: int, before: int) -> tuple[list[dict[str, float]], int]:
    """Points of a journal, and how many positions lie behind it: `before` and its own."""
    points: list[dict[str, float]] = []
    for line in journal.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        at = before + entry["step"] * positions
        if "text" in entry and entry["step"] % EVERY == 0:
            audio = [entry[f"audio{c}"] for c in range(1, 9) if f"audio{c}" in entry]
            points.append(
                {"positions": at, "text": entry["text"]} | ({"audio": sum(audio) / len(audio)} if audio else {})
            )
    return points, at


def record(stages: list[tuple[str, Path, int]], scores: list[tuple[str, int, Path]]) -> dict[str, Any]:
    """The curves of all stages and the scores along them."""
    start: dict[str, tuple[int, int]] = {}
    curve, before = [], 0
    for name, journal, positions in stages:
        start[name] = (before, positions)
        points, before = losses(journal, positions, before)
        curve.append({"stage": name, "points": points})
    measured = []
    for name, step, path in scores:
        found = json.loads(path.read_text(encoding="utf-8"))
        offset, positions = start[name]
        point: dict[str, Any] = {"positions": offset + step * positions, "stage": name, "step": step}
        point |= {key: found[key] for key in ("environment", "dtype", "seed", "limit")}
        measured.append(point | {"scores": found["scores"]})
    return {
        "environment": environment("cpu"),
        "losses": curve,
        "scores": sorted(measured, key=lambda point: point["positions"]),
    }


def plot(made: dict[str, Any], path: Path) -> None:
    """Losses above, word error rates below, over positions in millions."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "nano"
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 6), layout="constrained")
    for stage in made["losses"]:
        for key, color in (("text", "C0"), ("audio", "C1")):
            points = [(p["positions"] / 1e6, p[key]) for p in stage["points"] if key in p]
            above.plot(*zip(*points, strict=True) if points else ((), ()), color=color, label=key)
        if stage["points"]:
            above.axvline(stage["points"][0]["positions"] / 1e6, color="0.8")
            above.annotate(
                stage["stage"],
                (stage["points"][0]["positions"] / 1e6, 1),
                xycoords=("data", "axes fraction"),
                fontsize=8,
            )
    above.set_ylabel("training loss, nats")
    handles = dict(zip(*reversed(above.get_legend_handles_labels()), strict=True))
    above.legend(handles.values(), handles.keys())
    for ability, key, label in (
        ("transcription", "wer", "transcription"),
        ("speaking", "wer whisper", "speaking, as whisper hears it"),
    ):
        points = [
            (p["positions"] / 1e6, row[key])
            for p in made["scores"]
            for row in list(p["scores"].get(ability, {}).values())[:1]
        ]
        below.plot(*zip(*points, strict=True) if points else ((), ()), marker="o", label=label)
    below.set(xlabel="positions trained on, millions", ylabel="word error rate", ylim=(0, None))
    below.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", action="append", default=[], metavar="NAME=JOURNAL:POSITIONS")
    parser.add_argument("--score", action="append", default=[], metavar="STAGE:STEP=SCORES")
    parser.add_argument("--plot", action="store_true", help="only draw the record that is there")
    arguments = parser.parse_args()
    if not arguments.plot:
        stages, scores = [], []
        for given in arguments.stage:
            name, rest = given.split("=", 1)
            journal, positions = rest.rsplit(":", 1)
            stages.append((name, Path(journal), int(positions)))
        for given in arguments.score:
            where, found = given.split("=", 1)
            name, step = where.rsplit(":", 1)
            scores.append((name, int(step), Path(found)))
        RECORD.write_text(json.dumps(record(stages, scores), indent=1) + "\n", encoding="utf-8")
    plot(json.loads(RECORD.read_text(encoding="utf-8")), PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
