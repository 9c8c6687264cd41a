"""What is told to a client whose event cannot be done; its connection goes on."""

from typing import Any


class EventError(Exception):
    """A client's event is refused: `message` names what was expected, `param` the field, `code` the kind."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code

    def described(self, event_id: object) -> dict[str, Any]:
        """The `error` of the server event; event_id: that of the client's event, if it had one."""
        return {
            "type": "invalid_request_error",
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "event_id": event_id if isinstance(event_id, str) else None,
        }


def shown(value: object) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def wrong(param: str, expected: str, value: object) -> EventError:
    """The error for a value that is not what was expected."""
    return EventError(f"{param}: expected {expected}, got {shown(value)}", param)


def unsupported(param: str, why: str) -> EventError:
    """The error for what the protocol knows and this server does not do."""
    return EventError(f"{param}: {why}", param, "unsupported")


def text_of(value: object, param: str, most: int, least: int = 0) -> str:
    """The value, a string of at most so many characters."""
    if not isinstance(value, str) or not least <= len(value) <= most:
        some = f"a string of {least} to {most} characters"
        raise wrong(param, some, value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(param, "valid Unicode", value) from None
    return value


def object_of(value: object, param: str, known: tuple[str, ...]) -> dict[str, Any]:
    """The value, an object without other keys than the known ones."""
    if not isinstance(value, dict):
        raise wrong(param, "an object", value)
    for key in value:
        if key not in known:
            raise EventError(
                f"{param}.{shown(key)[1:-1]}: unknown, expected {', '.join(known)}", param, "unknown_parameter"
            )
    return value


def whole(value: object, param: str, least: int, most: int) -> int:
    """The value, an integer between the two."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise wrong(param, f"an integer from {least} to {most}", value)
    return value


def flag(value: object, param: str) -> bool:
    """The value, true or false."""
    if not isinstance(value, bool):
        raise wrong(param, "true or false", value)
    return value
