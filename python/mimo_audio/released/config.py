"""What the configurations of all models share: reading, checking and writing the config.json of a release."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_audio.errors import ModelError
from mimo_audio.files.output import atomic_output
from mimo_audio.files.schema import checked, read_json, refuse, shown

if TYPE_CHECKING:
    from typing_extensions import Self

PLAIN = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}  # rotary positions as these models have


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

    def __post_init__(self) -> None:
        problems: list[str] = []
        for f in fields(self):
            if f.name != "extra":
                object.__setattr__(self, f.name, checked(f.name, f.type, getattr(self, f.name), problems))
        refuse(problems, ModelError, "config")
        self.normalize()
        refuse(self.contradictions(), ModelError, "config")

    def normalize(self) -> None:
        """Fills in what one value says about others."""

    def contradictions(self) -> list[str]:
        """Values that are fine alone but not together."""
        return []

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Self":
        """The configuration in an already parsed config.json. Raises ModelError."""
        values = _with_rotary_positions(values)
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
            values = read_json(path)
        except ValueError as error:
            raise ModelError(str(error)) from error
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


def _with_rotary_positions(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config.json with `rope_theta` as a key of its own; transformers 5 writes it in `rope_parameters`.

    Raises ModelError for what these models do not have: scaled or partly rotated positions, windows by layer.
    """
    values = {name: value for name, value in values.items() if value is not None or name != "rope_theta"}
    problems = [
        f"{name} must be {expected}, got {shown(got)}"
        for name, expected, fine in (
            ("partial_rotary_factor", "1", lambda got: got == 1),
            (
                "layer_types",
                "full_attention in every layer",
                lambda got: isinstance(got, list) and {*map(str, got)} <= {"full_attention"},
            ),
        )
        if (got := values.get(name)) is not None and not fine(got)
    ]
    for name in ("rope_parameters", "rope_scaling"):
        inner = values.pop(name) if values.get(name) is not None else {}
        if not isinstance(inner, dict):
            problems.append(f"{name} must be an object, got {shown(inner)}")
            continue
        for key, value in inner.items():
            if key == "rope_theta" and value is not None and values.setdefault(key, value) != value:
                problems.append(f"{name}.rope_theta must be rope_theta {shown(values[key])}, got {shown(value)}")
            elif key != "rope_theta" and value is not None and PLAIN.get(key) != value:
                known = f"must be {PLAIN[key]}, got {shown(value)}" if key in PLAIN else "is not known here"
                problems.append(f"{name}.{key} {known}")
    refuse(problems, ModelError, "config")
    return values
