"""Pictures: both log-mel spectrograms of round trips, the scores of sets, the use of codebooks, spoken abilities.

They need matplotlib (the extra "eval").
"""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import MEL_FLOOR, MEL_RATE, Wave, log_mel
from mimo_audio.evaluate.report import COLUMNS, RoundTrip

UNITS = {  # of the scores that have one
    "pesq_nb": "MOS-LQO",
    "pesq_wb": "MOS-LQO",
    "mel_distance_db": "dB",
    "f0_error": "share of F0",
    "real_time_factor": "s per s of sound",
}
PLOT_SECONDS = 30  # of a longer recording the start is drawn


def require_matplotlib() -> None:
    """Raises MimoError if the picture cannot be drawn here; meant for before long work."""
    if find_spec("matplotlib") is None:
        raise MimoError("the picture needs matplotlib: pip install matplotlib")


def plot_mels(path: Path, reference: Wave, decoded: Wave, title: str) -> None:
    """Draws the log-mel spectrograms of two waves [N] at 24 kHz to a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(2, 1, sharex=True)
    for axis, wave, name in zip(axes, (reference, decoded), ("original", "decoded"), strict=True):
        mel = log_mel(wave[: PLOT_SECONDS * MEL_RATE], MEL_FLOOR)
        image = axis.imshow(
            mel.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-7,
            vmax=4,
            extent=(0, len(mel) / 100, 0, mel.shape[1]),
        )
        axis.set(ylabel=f"{name}: mel band")
    axes[-1].set(xlabel="seconds")
    figure.colorbar(image, ax=axes, label="log magnitude")
    figure.savefig(path, format="png", dpi=120)


def plot_scores(path: Path, sets: Mapping[str, Sequence[RoundTrip]]) -> None:
    """Draws every score's spread over the files of each set to a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scores = [(title, key) for title, key, _ in COLUMNS if key not in ("seconds", "kbit_per_s")]
    figure = Figure(figsize=(3 * len(scores), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (title, key) in zip(figure.subplots(1, len(scores)), scores, strict=True):
        values = [[v for trip in trips if (v := trip.record()[key]) is not None] for trips in sets.values()]
        axis.boxplot(values)
        axis.set_xticks(range(1, len(sets) + 1), sets, rotation=45, ha="right")
        axis.set(title=title, ylabel=UNITS.get(key, ""))
    figure.savefig(path, format="png", dpi=100)


def plot_usage(path: Path, usage: Sequence[Mapping[str, float]]) -> None:
    """Draws perplexity and size of every codebook to a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name, colour in (("size", "lightgrey"), ("used", "silver"), ("perplexity", "tab:blue")):
        axis.bar(range(len(usage)), [row[name] for row in usage], color=colour, label=name)
    axis.set(xlabel="codebook", ylabel="entries", yscale="log")
    axis.set_ylim(bottom=1)  # on a logarithmic axis bars have no natural foot: one entry
    axis.legend()
    figure.savefig(path, format="png", dpi=100)


# Of each ability the picture's score and, beside it in grey, the originals'; {} is the recogniser.
ABILITIES = {
    "transcription": ("wer", "wer {}", "word error rate"),
    "speaking": ("wer {}", "wer original {}", "word error rate"),
    "conversion": ("distance", "distance unchanged", "distance to the target"),
    "continuation": ("similarity", "original similarity", "similarity of voices"),
    "answering": ("right", "", "share of right answers"),
}


def plot_abilities(path: Path, scores: Mapping[str, Mapping[str, Mapping[str, Any]]], recogniser: str) -> None:
    """Draws one score of each ability's rows with its 95% interval to a PNG file, the originals' beside it in grey."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [max(2, len(rows)) for rows in scores.values()]
    figure = Figure(figsize=(8, 1 + 0.5 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(scores), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axis, (ability, rows) in zip(panels[:, 0], scores.items(), strict=True):
        model, original, label = ABILITIES[ability]
        for key, colour, shift in ((original, "grey", 0.15), (model, "tab:blue", -0.15)):
            _points(axis, [row.get(key.format(recogniser)) for row in rows.values()],
                    [row.get(f"{key.format(recogniser)}_95") for row in rows.values()], colour, shift)  # fmt: skip
        axis.set_yticks(range(len(rows)), list(rows))
        axis.set(title=ability, xlabel=label, xlim=(0, None), ylim=(len(rows) - 0.5, -0.5))
    figure.savefig(path, format="png", dpi=100)


def plot_shots(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Draws the distances of conversions against the number of examples, right and wrong ones, to a PNG file.

    Rows are named "SET KIND N shots".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for name, row in rows.items():
        if match := re.fullmatch(r"(.*) (\d+) shots", name):
            curves.setdefault(match[1], []).append((int(match[2]), row))
    figure = Figure(figsize=(4 * max(1, len(curves)), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, found) in zip(
        figure.subplots(1, max(1, len(curves)), squeeze=False)[0], curves.items(), strict=False
    ):
        for key, colour, label in (
            ("distance", "tab:blue", "right examples"),
            ("distance wrong", "tab:red", "wrong examples"),
            ("distance unchanged", "grey", "unchanged"),
        ):
            points = [(shots, row[key], row[f"{key}_95"]) for shots, row in found if row.get(key) is not None]
            axis.plot(
                [shots for shots, _, _ in points], [value for _, value, _ in points], "o-", color=colour, label=label
            )
            for shots, _, interval in points:
                if interval:
                    axis.plot([shots, shots], interval, color=colour, alpha=0.4)
        axis.set(title=name, xlabel="examples", ylabel="distance to the target", ylim=(0, None))
        axis.legend()
    figure.savefig(path, format="png", dpi=100)


def _points(axis: Any, values: Sequence[Any], intervals: Sequence[Any], colour: str, shift: float) -> None:
    for place, (value, interval) in enumerate(zip(values, intervals, strict=True)):
        if interval:
            axis.plot(interval, [place + shift] * 2, color=colour, alpha=0.5)
        if value is not None:
            axis.plot([value], [place + shift], "o", color=colour)
