"""Scores of spoken abilities from what single answers gave: rates and means with bootstrap intervals, and their table.

An item is the record of one answer, a flat dict; a row of the table is a list of them. Keys of scores end in _95 where
they are intervals. Word errors are by recogniser ("wer whisper"); originals are the recordings that the answers stand
beside, judged alike, and differences are paired.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mimo_audio.evaluate import bootstrap
from mimo_audio.evaluate.report import aligned

Item = dict[str, Any]
Scores = dict[str, Any]
LENGTH_WITHIN = 0.15


def transcription_scores(items: Sequence[Item], recognisers: Iterable[str]) -> Scores:
    """WER and CER of the model, WER of each recogniser on the same recordings, and the difference."""
    scores = _counts(items) | _rate(items, "wer", "wrong_words", "words")
    scores |= _rate(items, "cer", "wrong_characters", "characters")
    for name in recognisers:
        scores |= _rate(items, f"wer {name}", f"wrong_words {name}", "words")
        rows = [(item["wrong_words"] - item[f"wrong_words {name}"], item["words"]) for item in items]
        scores |= _named(f"wer difference {name}", bootstrap.rate(rows))
    return scores


def speech_scores(items: Sequence[Item], recognisers: Iterable[str]) -> Scores:
    """WER by each recogniser on what was spoken and on the originals; voices, quality and length of both."""
    scores = _counts(items)
    for name in recognisers:
        said = [item for item in items if f"wrong_words {name}" in item]
        scores |= _rate(said, f"wer {name}", f"wrong_words {name}", "words")
        there = [item for item in said if f"original wrong_words {name}" in item]
        scores |= _rate(there, f"wer original {name}", f"original wrong_words {name}", "words")
        rows = [(i[f"wrong_words {name}"] - i[f"original wrong_words {name}"], i["words"]) for i in there]
        scores |= _named(f"wer difference {name}", bootstrap.rate(rows))
    for key in ("similarity", "original similarity", "other similarity", "quality", "original quality"):
        scores |= _mean(items, key)
    pairs = [(item["nearer pairs"], item["pairs"]) for item in items if item.get("pairs")]
    scores |= _named("nearer", bootstrap.rate(pairs))
    return scores | _mean(items, "length ratio")


def conversion_scores(right: Sequence[Item], wrong: Sequence[Item], recognisers: Iterable[str]) -> Scores:
    """Distance to the target after right and wrong examples of the same queries, in pairs (wrong may be empty).

    "gain" is the distance after wrong examples less that after right ones: above 0 if the examples are followed.
    """
    scores = _counts([*right, *wrong])
    scores["items"] = len(right)
    scores |= _mean(right, "distance") | _mean(wrong, "distance", "distance wrong")
    scores |= _mean(right, "distance unchanged")
    found = {item["sample"]: item["distance"] for item in wrong if item["distance"] is not None}
    pairs = [(item["distance"], found[item["sample"]]) for item in right if item["sample"] in found]
    gains = [other - one for one, other in pairs if one is not None]
    scores |= _named("gain", bootstrap.mean(gains))
    for name in recognisers:
        scores |= _rate(right, f"wer {name}", f"wrong_words {name}", "words")
        scores |= _rate(right, f"wer original {name}", f"original wrong_words {name}", "words")
    within = [abs(item["length ratio"] - 1) <= LENGTH_WITHIN for item in right]
    return scores | _named("length within", bootstrap.mean(within))


def answer_scores(items: Sequence[Item]) -> Scores:
    """Share of right answers."""
    return _counts(items) | _mean(items, "right")


SHOWN: dict[str, tuple[tuple[str, str, str], ...]] = {  # title, key ({} is the recogniser), format; with its interval
    "transcription": (
        ("WER", "wer", "{:.3f}"),
        ("CER", "cer", "{:.3f}"),
        ("WER {}", "wer {}", "{:.3f}"),
        ("difference", "wer difference {}", "{:+.3f}"),
    ),
    "speaking": (
        ("WER {}", "wer {}", "{:.3f}"),
        ("originals", "wer original {}", "{:.3f}"),
        ("difference", "wer difference {}", "{:+.3f}"),
        ("similarity", "similarity", "{:.3f}"),
        ("originals", "original similarity", "{:.3f}"),
        ("to others", "other similarity", "{:.3f}"),
        ("nearer", "nearer", "{:.1%}"),
        ("quality", "quality", "{:.2f}"),
        ("originals", "original quality", "{:.2f}"),
        ("length", "length ratio", "{:.2f}"),
    ),
    "conversion": (
        ("distance", "distance", "{:.3f}"),
        ("wrong examples", "distance wrong", "{:.3f}"),
        ("gain", "gain", "{:+.3f}"),
        ("unchanged", "distance unchanged", "{:.3f}"),
        ("WER {}", "wer {}", "{:.3f}"),
        ("originals", "wer original {}", "{:.3f}"),
        ("length within 15%", "length within", "{:.0%}"),
    ),
    "answering": (("right", "right", "{:.1%}"),),
}
SHOWN["continuation"] = tuple(column for column in SHOWN["speaking"] if "wer" not in column[1])
WITH_INTERVAL = ("wer", "difference", "nearer", "gain", "right", "length within")


def table(ability: str, rows: Mapping[str, Scores], recognisers: Sequence[str]) -> str:
    """A line per row: its items, how many ran away or were silent, and the scores, "-" where undefined."""
    columns = [("items", "items", "{}"), ("runaways", "runaways", "{}"), ("no answer", "no answer", "{}")]
    shown = {label: dict(scores) for label, scores in rows.items()}
    for title, key, form in SHOWN[ability]:
        for name in recognisers if "{}" in key else ("",):
            column = key.format(name)
            columns.append((title.format(name), column, "{}"))
            for scores in shown.values():
                scores[column] = _cell(scores, column, form)
    used = [column for column in columns if any(scores[column[1]] is not None for scores in shown.values())]
    return aligned(used, list(shown.items()))


def _cell(scores: Scores, key: str, form: str) -> str | None:
    value, interval = scores.get(key), scores.get(f"{key}_95")
    if value is None:
        return None
    if interval is None or not any(word in key for word in WITH_INTERVAL):
        return form.format(value)
    return f"{form.format(value)} [{form.format(interval[0])}, {form.format(interval[1])}]"


def _counts(items: Sequence[Item]) -> Scores:
    """How many answers there are, how many did not end by themselves, and how many are none."""
    return {
        "items": len(items),
        "runaways": sum(not item["ended"] for item in items),
        "no answer": sum(item["failed"] is not None for item in items),
    }


def _rate(items: Sequence[Item], name: str, above: str, below: str) -> Scores:
    return _named(name, bootstrap.rate([(item[above], item[below]) for item in items if above in item]))


def _mean(items: Sequence[Item], key: str, name: str | None = None) -> Scores:
    return _named(name or key, bootstrap.mean([item[key] for item in items if item.get(key) is not None]))


def _named(name: str, found: tuple[float | None, list[float] | None]) -> Scores:
    return {name: found[0], f"{name}_95": found[1]}
