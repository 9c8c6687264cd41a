"""The check that all settings of streams pass."""

from mimo_audio.errors import StreamError


def check_setting(name: str, value: object, low: int, high: int | None = None, optional: bool = False) -> None:
    """Raises StreamError unless `value` is an integer in low .. high, or None where it may be."""
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        limits = f"an integer from {low}" + ("" if high is None else f" to {high}")
        raise StreamError(f"{name}: expected {limits}{' or None' if optional else ''}, got {value!r}")
