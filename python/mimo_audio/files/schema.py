"""JSON objects as dataclasses whose annotations say what each value may be: types, ranges, words, nested objects."""

import json
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mimo_audio.errors import MimoError

LONGEST = 80  # characters of a quoted value


@dataclass(frozen=True)
class Range:
    """Limits of a number, both included; `above` leaves the lower one out."""

    low: float
    high: float
    above: bool = False

    def holds(self, number: float) -> bool:
        return self.low <= number <= self.high and not (self.above and number == self.low)

    def __str__(self) -> str:
        return f"above {self.low:g}, {self.high} at most" if self.above else f"from {self.low} to {self.high}"


@dataclass(frozen=True)
class Reads:
    """How a file may also write a value: `convert` brings it into the annotated form, or returns it as it is."""

    convert: Callable[[Any], Any]
    form: str  # in words


Size = Annotated[int, Range(1, 1 << 20)]  # far beyond any model, and small enough to fail at once
Layers = Annotated[int, Range(1, 1000)]
Index = Annotated[int, Range(0, 1 << 20)]
Steps = Annotated[int, Range(1, 1 << 40)]
Weight = Annotated[float, Range(0, 10**9)]
Fraction = Annotated[float, Range(0, 1)]


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError, one line, if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"cannot read {path}: nested too deeply") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def shown(value: object) -> str:
    """A value as a message quotes it."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # Python writes no integers of more than 4300 digits
        return f"a huge {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 2 :]}"


def expected(kind: Any) -> str:
    """What an annotation allows, in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        detail = arguments[1]
        if isinstance(detail, Reads):
            return f"{expected(arguments[0])} ({detail.form})"
        return f"{'an integer' if arguments[0] is int else 'a number'} {detail}"
    if origin is Literal:
        return " or ".join(map(json.dumps, arguments))
    if origin in (Union, types.UnionType):
        return f"null or {expected(arguments[0])}"
    if origin is tuple:
        length = "that is not empty" if arguments[1:] == (...,) else f"of {len(arguments)}"
        return f"a list {length}, each {expected(arguments[0])}"
    return "true or false" if kind is bool else "an object"


def checked(name: str, kind: Any, value: Any, problems: list[str]) -> Any:
    """The value as its annotation wants it; what is wrong with it is added to `problems`, a line for each fault.

    Annotations: bool; int and float with a Range; Literal; X | None; tuples of one kind; dataclasses; Reads of one.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    found: list[str] = []
    if origin is Annotated and isinstance(arguments[1], Reads):
        inner = checked(name, arguments[0], arguments[1].convert(value), found)
        problems += [f"{name} must be {expected(kind)}, got {shown(value)}"] if found else []
        return inner
    if origin is Annotated:
        number = isinstance(value, int if arguments[0] is int else int | float) and not isinstance(value, bool)
        if number and arguments[1].holds(value):
            return arguments[0](value)
    elif origin is Literal:
        if any(value is word or (isinstance(word, str) and value == word) for word in arguments):
            return value
    elif origin in (Union, types.UnionType):  # X | None
        if value is None:
            return None
        own = f"{name} must be "
        inner = checked(name, arguments[0], value, found)
        problems += [p.replace(own, f"{own}null or ", 1) if p.startswith(own) else p for p in found]
        return inner
    elif origin is tuple:
        any_length = arguments[1:] == (...,)
        if isinstance(value, list | tuple) and value and (any_length or len(value) == len(arguments)):
            return tuple(checked(f"{name}[{i}]", arguments[0], item, problems) for i, item in enumerate(value))
    elif is_dataclass(kind):
        if isinstance(value, dict):
            return read_object(name, kind, value, problems)
    elif isinstance(value, kind):
        return value
    problems.append(f"{name} must be {expected(kind)}, got {shown(value)}")
    return None


def read_object(name: str, kind: Any, values: dict[str, Any], problems: list[str]) -> Any:
    """A dataclass from a parsed JSON object that has all its keys and no others; None if there are `problems`."""
    known = {f.name: f for f in fields(kind)}
    missing = [key for key, f in known.items() if f.default is MISSING and key not in values]
    unknown = sorted(values.keys() - known.keys())
    if missing or unknown:
        problems += [f"{name} lacks {', '.join(missing)}"] if missing else []
        problems += [f"{name} may not have {', '.join(unknown)}, only {', '.join(known)}"] if unknown else []
        return None
    before = len(problems)
    read = {key: checked(f"{name}.{key}", known[key].type, value, problems) for key, value in values.items()}
    return kind(**read) if len(problems) == before else None


def refuse(problems: list[str], error: type[MimoError], where: str) -> None:
    """Raises an error with one line that lists the problems, if there are any."""
    if problems:
        raise error(f"{where}: {'; '.join(problems)}")
