"""Pictures of round trips: both log-mel spectrograms, the scores of sets, the use of codebooks.

They need matplotlib (the extra "eval").
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

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
