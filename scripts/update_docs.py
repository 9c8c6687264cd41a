"""Writes the tables of the documents from the records in bench/results (--check: fails if they are out of date)."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def sound(row: dict[str, Any]) -> list[str]:
    """Mean and worst of what was measured against offline decoding."""
    pairs = [(row[key], places) for key, places in (("snr", 1), ("first_second_snr", 1), ("pesq_wb", 2), ("stoi", 4))]
    return [f"{values['mean']:.{places}f} ({values['worst']:.{places}f})" for values, places in pairs]


SOUND = ["SNR, dB", "SNR of the first second", "PESQ-WB", "STOI"]


def look_ahead(record: dict[str, Any]) -> str:
    first, *rest = record["look_ahead"]
    rows = [
        [
            "all the vocoder sees" if row["look_ahead"] is None else str(row["look_ahead"]),
            f"{row['delay_s'] * 1e3:.0f} ms",
            f"{row['offline_statistics']['snr']['mean']:.1f}",
            *sound(row),
        ]
        for row in sorted([first, *rest], key=lambda row: row["delay_s"])
    ]
    rows.append(["re-decoding", "1600 ms", "", *sound(record["redecoding"])])
    return table(["look-ahead, code frames", "delay", "SNR with offline's statistics", *SOUND], rows)


def norms(record: dict[str, Any]) -> str:
    def name(row: dict[str, Any]) -> str:
        if "warm_up" in row:
            return f"of the first {row['warm_up'] / 25:g} s, then frozen"
        frames = row["prior_frames"]
        if frames < 0.01:
            return "of the stream so far"
        return "of speech (the prior) alone" if frames > 1e6 else f"so far, and the prior counted as {frames:g} frames"

    return table(["statistics", *SOUND], [[name(row), *sound(row)] for row in record["norms"]])


def encoder(record: dict[str, Any]) -> str:
    rows = [
        [
            *(str(row[key]) for key in ("look_ahead", "step", "context")),
            f"{(row['look_ahead'] + row['step']) * 40} ms",
            f"{row['equal'][0]:.1%}",
            f"{row['equal'][1]:.1%}",
            f"{sum(row['equal'][2:]) / len(row['equal'][2:]):.1%}",
            *sound(row)[2:],
        ]
        for row in record["encoder"]
    ]
    head = ["look-ahead", "step", "context", "delay", "codebook 0 equal", "codebook 1", "mean of the rest"]
    return table([*head, "PESQ-WB", "STOI"], rows)


def clips(record: dict[str, Any]) -> str:
    seconds = sum(clip["seconds"] for clip in record["clips"])
    names = ", ".join(clip["name"].removesuffix(".wav") for clip in record["clips"])
    return f"{len(record['clips'])} clips, {seconds:.0f} s: {names}. Model: {record['model']}.\n"


def speed(record: dict[str, Any]) -> str:
    rows = [
        [
            str(row["streams"]),
            str(row["step"]),
            f"{row['step_s'] * 1e3:.1f} ms",
            f"{row['late_s'] * 1e3:.1f} ms",
            f"{row['rtf']:.3g}",
            f"{row['redecode_s'] * 1e3:.0f} ms",
            f"{row['step_s'] / row['redecode_s']:.1%}",
        ]
        for row in record["steps"]
    ]
    about = record["machine"]
    head = [
        "streams",
        "step, frames",
        "time of a step",
        "slowest",
        "real-time factor",
        "re-decoding",
        "share of it",
    ]
    threads = "1 thread" if about["threads"] == 1 else f"{about['threads']} threads"
    return table(head, rows) + f"\n{record['model']}, {about['device']}, {threads}, torch {about['torch']}.\n"


def long_stream(record: dict[str, Any]) -> str:
    rows = [
        [
            str(row["minute"]),
            f"{row['step_s'] * 1e3:.2f} ms",
            f"{row['state_bytes'] / 1e3:.1f} kB",
            f"{row['resident_bytes'] / 1e6:.0f} MB",
        ]
        for row in record["long"]["minutes"]
    ]
    return table(["minute", f"step of {record['long']['step']} frames", "state", "whole process"], rows)


def variants(stage: str) -> Callable[[dict[str, Any]], str]:
    """A row per training run of a stage, the scores of every set side by side."""

    def make(record: dict[str, Any]) -> str:
        sets = list(next(iter(record[stage].values()))["scores"])
        scores = (
            ("STOI", "stoi", "{:.3f}"),
            ("PESQ-WB", "pesq_wb", "{:.2f}"),
            ("mel distance, dB", "mel_distance_db", "{:.1f}"),
            ("F0 error", "f0_error", "{:.1%}"),
        )
        rows = [
            [
                name,
                f"{run['steps']:,}",
                *(
                    " / ".join("-" if one[key] is None else form.format(one[key]) for one in run["scores"].values())
                    for _, key, form in scores
                ),
            ]
            for name, run in record[stage].items()
        ]
        head = ["run", "steps", *(title for title, _, _ in scores)]
        return table(head, rows) + f"\nScores: {' / '.join(name.replace('_', ' ') for name in sets)}.\n"

    return make


def quality(record: dict[str, Any]) -> str:
    """A row per held-out set."""
    rows = []
    for name, scores in record["sets"].items():
        mean = scores["mean"]
        wer = "-"
        if mean["words"]:
            low, high = mean["wer_difference_95"]
            wer = f"{mean['wer_original']:.3f} / {mean['wer_decoded']:.3f}"
            wer += f", {mean['wer_difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append(
            [
                f"{name} ({len(scores['files'])} recordings, {mean['seconds'] / 60:.1f} min)",
                f"{mean['stoi']:.3f}",
                f"{mean['pesq_nb']:.2f}",
                f"{mean['pesq_wb']:.2f}",
                f"{mean['mel_distance_db']:.1f}",
                f"{mean['f0_error']:.1%}",
                f"{mean['speaker_similarity']:.3f}",
                wer,
            ]
        )
    return table(
        [
            "held-out set",
            "STOI",
            "PESQ-NB",
            "PESQ-WB",
            "mel distance, dB",
            "F0 error",
            "voice",
            "word errors, original / resynthesis",
        ],
        rows,
    )


def speech(record: dict[str, Any]) -> str:
    """Word error rates of listening and of what was spoken, the judge's on the originals beside them."""

    def rate(row: dict[str, Any], key: str) -> str:
        low, high = row[f"{key}_95"]
        return f"{row[key]:.2f} [{low:.2f}, {high:.2f}]"

    rows = []
    for name, scores in record["sets"].items():
        [heard], [said] = scores["transcription"].values(), scores["speaking"].values()
        similar = said.get("similarity"), said.get("other similarity"), said.get("nearer")
        voice = "-" if None in similar else f"{similar[0]:.2f} / {similar[1]:.2f}, {similar[2]:.0%}"
        rows.append(
            [
                f"{name} ({heard['items']})",
                rate(heard, "wer"),
                rate(said, "wer whisper"),
                f"{heard['wer whisper']:.2f}",
                voice,
            ]
        )
    head = ["sentences, voices", "WER, transcribing", "WER, speaking", "Whisper on the originals"]
    return table([*head, "voice: like the prompt / like others, pairs right"], rows)


Table = tuple[str, Callable[[dict[str, Any]], str]]  # the record, and what makes the table of it
TABLES: dict[str, dict[str, Table]] = {  # by file, by mark
    "python/mimo_audio/assets/nano/MODEL_CARD.md": {"quality": ("nano", quality)},
    "python/mimo_audio/assets/nano_lm/MODEL_CARD.md": {"speech": ("nano_speech", speech)},
    "docs/streaming.md": {
        "look-ahead": ("streaming_deviation", look_ahead),
        "norms": ("streaming_deviation", norms),
        "encoder": ("streaming_deviation", encoder),
        "clips": ("streaming_deviation", clips),
        "speed": ("streaming", speed),
        "speed-released": ("streaming_released", speed),
        "long": ("streaming", long_stream),
    },
    "docs/training.md": {
        "stage1": ("tokenizer_ablation", variants("stage1")),
        "stage2": ("tokenizer_ablation", variants("stage2")),
    },
}


def updated(text: str, tables: dict[str, Table]) -> str:
    for name, (record, make) in tables.items():
        head, rest = text.split(f"<!-- {name}:begin -->\n")
        content = make(json.loads((RESULTS / f"{record}.json").read_text()))
        text = f"{head}<!-- {name}:begin -->\n{content}<!-- {name}:end -->{rest.split(f'<!-- {name}:end -->')[1]}"
    return text


def main() -> int:
    check, stale = "--check" in sys.argv[1:], 0
    for name, tables in TABLES.items():
        path = ROOT / name
        text = path.read_text()
        wanted = updated(text, tables)
        if not check:
            path.write_text(wanted)
        elif text != wanted:
            stale = 1
            print(
                f"docs/{name}: its tables are not those of bench/results; run scripts/update_docs.py", file=sys.stderr
            )
    return stale


if __name__ == "__main__":
    sys.exit(main())
