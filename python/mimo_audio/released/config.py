"""What the configurations of all models share: reading, checking and writing the config.json of a release."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mimo_audio.errors import ModelError
from mimo_audio.files.output import atomic_output

if TYPE_CHECKING:
    from typing_extensions import Self

LARGEST, MOST_LAYERS = 1 << 20, 1000  # far beyond any model, and small enough to fail at once


def is_int(value: object, low: int, high: int = LARGEST) -> bool:
    """Whether a value is an integer (no truth value) from `low` to `high`."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def dashed(entries: Sequence[int]) -> str:
    """ "0-1-2", as releases write a number per codebook."""
    return "-".join(map(str, entries))


@dataclass(frozen=True, kw_only=True)
class ReleasedConfig:
    """Base of the configurations: their fields are the keys of config.json, of which a null counts as absent.

    `extra` holds the keys of a file that mean nothing to this code, so that saving keeps them. Raises ModelError with
    one line that lists everything wrong.
    """

    extra: Mapping[str, Any] = field(default_factory=dict)

    choices: ClassVar[Mapping[str, Sequence[str]]] = {}  # of the keys that take one of a few words
    counts: ClassVar[tuple[str, ...]] = ("_layers",)  # endings of the keys that hold small numbers

    def __post_init__(self) -> None:
        problems = [
            f"{f.name} must be {expected}, got {getattr(self, f.name)!r}"
            for f in fields(self)
            if (expected := self.expected(f.name, f.type, getattr(self, f.name)))
        ]
        if problems:
            raise ModelError("config: " + "; ".join(problems))
        self.normalize()
        if problems := self.contradictions():
            raise ModelError("config: " + "; ".join(problems))

    def expected(self, name: str, annotation: object, value: Any) -> str | None:
        """What the value of a key should have been, None if it is fine."""
        if name in self.choices:
            allowed = self.choices[name]
            return None if value in allowed else " or ".join(map(repr, allowed))
        if annotation is int:
            high = MOST_LAYERS if name.endswith(self.counts) else LARGEST
            return None if is_int(value, 1, high) else f"an integer from 1 to {high}"
        if annotation is bool:
            return None if isinstance(value, bool) else "true or false"
        if annotation is float:
            number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
            return None if number else "a number >= 0"
        return None

    def normalize(self) -> None:
        """Brings values that a file may write in several ways into one form."""

    def contradictions(self) -> list[str]:
        """Values that are fine alone but not together."""
        return []

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Self":
        """The configuration in an already parsed config.json. Raises ModelError."""
        known = {f.name: f for f in fields(cls) if f.name != "extra"}
        given = {name: value for name, value in values.items() if name in known and value is not None}
        missing = [name for name, f in known.items() if f.default is MISSING and name not in given]
        if missing:
            raise ModelError(f"config: missing {', '.join(missing)}")
        return cls(**given, extra={name: value for name, value in values.items() if name not in known})

    @classmethod
    def load(cls, path: Path) -> "Self":
        """Reads a released config.json. Raises ModelError if it cannot be read or describes no such model."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"cannot read {path}: {error}") from error
        if not isinstance(values, dict):
            raise ModelError(f"{path}: expected a JSON object, got {type(values).__name__}")
        try:
            return cls.from_dict(values)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Everything a released config.json holds, keys unknown to this code included."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
        return {**self.extra, **lists}

    def save(self, path: Path) -> None:
        """Writes config.json, whole or not at all. Raises OutputError."""
        with atomic_output(path, force=True) as partial:
            partial.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
