"""What a recipe may change when its run is continued: how it runs, and how long; the rest is refused by name."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mimo_audio.train.recipe import Recipe, Stage1, Stage2, TrainingError

FREE = ("workers", "log_every", "checkpoint_every")  # change no step
LENGTH = "steps"  # changes the learning rate of steps to come


def noted(recipe: Recipe, training: Stage1 | Stage2) -> dict[str, Any]:
    """What a stage's checkpoint holds of its recipe, as parsed JSON."""
    data = {str(source): share for source, share in recipe.data.items()}
    stage = {name: value for name, value in asdict(training).items() if name not in FREE}
    return json.loads(json.dumps({"model": recipe.model.to_dict(), "data": data, training.name: stage}))


def check(place: object, before: dict[str, Any], now: dict[str, Any], done: bool) -> str | None:
    """What changed and may, in words, between two of `noted`; done: the next stage has begun, and nothing may.

    Raises TrainingError that names every value that may not change.
    """
    old, new = dict(_leaves("", before)), dict(_leaves("", now))
    changed = {name: (old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)}
    allowed = [] if done else [name for name in changed if name.endswith(f".{LENGTH}")]
    wrong = [f"{name}: expected {a!r}, got {b!r}" for name, (a, b) in changed.items() if name not in allowed]
    if wrong:
        hint = "nothing may change once stage 2 has begun" if done else f"only {', '.join((LENGTH, *FREE))} may change"
        raise TrainingError(f"cannot resume from {place}: {'; '.join(wrong)} ({hint})")
    told = [f"{name} {changed[name][1]}, until now {changed[name][0]}" for name in allowed]
    return f"{', '.join(told)}: the learning rate follows the new length" if told else None


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted names and values, of lists whole."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}" if name else key, item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(f"{name}[{number}]", item)
    else:
        yield name, value
