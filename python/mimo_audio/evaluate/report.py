"""The table and the record of round trips."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from mimo_audio.errors import one_line
from mimo_audio.evaluate.metrics import missing_packages
from mimo_audio.evaluate.quality import Quality

COLUMNS = (  # title, key, format
    ("seconds", "seconds", "{:.1f}"),
    ("kbit/s", "kbit_per_s", "{:.2f}"),
    ("PESQ-NB", "pesq_nb", "{:.2f}"),
    ("PESQ-WB", "pesq_wb", "{:.2f}"),
    ("STOI", "stoi", "{:.3f}"),
    ("mel distance", "mel_distance_db", "{:.2f} dB"),
    ("F0 error", "f0_error", "{:.1%}"),
    ("real-time factor", "real_time_factor", "{:.3f}"),
)
MEANS = ("kbit_per_s", "pesq_nb", "pesq_wb", "stoi", "mel_distance_db", "f0_error", "real_time_factor")


@dataclass(frozen=True)
class RoundTrip:
    """What one round trip gave; the real-time factor is the time of encode + decode per second of sound."""

    input: str
    output: str
    seconds: float
    kbit_per_s: float
    real_time_factor: float
    quality: Quality

    def record(self) -> dict[str, Any]:
        """All values by name, quality included, as JSON takes them."""
        values = asdict(self)
        return values | values.pop("quality")


def mean_record(trips: Sequence[RoundTrip]) -> dict[str, float | None]:
    """Mean of every score over the files that have it."""
    records = [trip.record() for trip in trips]
    found = {key: [record[key] for record in records if record[key] is not None] for key in MEANS}
    return {key: fmean(values) if values else None for key, values in found.items()}


def table(trips: Sequence[RoundTrip]) -> str:
    """One line per round trip, their mean if there are several, "-" where undefined, and which packages are missing."""
    folder = os.path.commonpath([os.path.dirname(trip.input) for trip in trips])
    named = [(one_line(os.path.relpath(trip.input, folder or ".")), trip.record()) for trip in trips]
    if len(trips) > 1:
        named.append(("mean", {"seconds": None, **mean_record(trips)}))
    return "\n".join([aligned(COLUMNS, named), *notes()])


def aligned(columns: Sequence[tuple[str, str, str]], named: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A row per name and record, a column per (title, key, format), "-" for None."""
    rows = [("", *(title for title, _, _ in columns))]
    for name, record in named:
        cells = ("-" if record[key] is None else form.format(record[key]) for _, key, form in columns)
        rows.append((name, *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def notes() -> list[str]:
    """Which packages are missing, in a line, if any are."""
    missing = missing_packages()
    return [f"PESQ and STOI need {' and '.join(missing)}: pip install {' '.join(missing)}"] if missing else []
