"""The picture of a round trip: both log-mel spectrograms, one above the other. Needs matplotlib (the extra "eval")."""

from importlib.util import find_spec
from pathlib import Path

from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import MEL_FLOOR, MEL_RATE, Wave, log_mel

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
