"""Errors that a client is told, in the shape that OpenAI's have. Never a traceback."""

from typing import Any

from mimo_audio.errors import MimoError, one_line


class ServeError(MimoError):
    """A request that is not answered: HTTP status, and what a client needs to know.

    code: for programs; param: the field that is wrong; retry_after: seconds after which to ask again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    @property
    def kind(self) -> str:
        """OpenAI's `type`."""
        return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer."""
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    def body(self) -> dict[str, Any]:
        """The `error` object and what is around it."""
        told = {"message": one_line(str(self)), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": told}


def bad(param: str, message: str) -> ServeError:
    """A field that is wrong."""
    return ServeError(400, f"{param}: {message}", "invalid_value", param)


def unavailable(message: str, retry_after: int, code: str = "overloaded") -> ServeError:
    """Not now."""
    return ServeError(503, message, code, retry_after=retry_after)


def told(error: Exception) -> ServeError:
    """What a client is told of any error: ours in words, all others without any."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, MimoError):
        return ServeError(400, str(error), "invalid_value")
    return ServeError(500, "the server failed to answer; its log says why", "internal_error")
