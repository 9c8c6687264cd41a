"""What a server is told when it starts. Immutable; imports nothing heavy."""

import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from mimo_audio.errors import MimoError

KEYS_VARIABLE = "MIMO_API_KEYS"


@dataclass(frozen=True)
class Limits:
    """What one client may ask for, and how many may ask at once.

    requests: that may be open, sent or answered; waiting: answers that may wait for a slot beside those that are made;
    upload_bytes: of a request's body; audio_seconds: of a recording; text: characters that are spoken or asked;
    answer_seconds: until an answer ends with what there is; per_minute: requests of one client, None for any number;
    stall_seconds: a client that takes nothing for so long is let go; drain_seconds: answers may go on for so long when
    the server is told to stop.
    """

    requests: int = 256
    waiting: int = 32
    upload_bytes: int = 25 << 20
    audio_seconds: float = 600.0
    text: int = 4096
    answer_seconds: float = 300.0
    per_minute: int | None = None
    stall_seconds: float = 30.0
    drain_seconds: float = 30.0


@dataclass(frozen=True)
class Settings:
    """Where a server listens and whom it answers.

    keys: SHA-256 digests of the API keys, empty for none; origins: of other hosts' web pages that may ask ("*" for
    all); hosts: names that a request may be addressed to, empty for any.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()
    limits: Limits = Limits()

    @property
    def loopback(self) -> bool:
        """Whether nobody on another machine can reach the server."""
        return is_loopback(self.host)

    def knows(self, key: str) -> bool:
        """Whether the key is one of the API keys, in a time that does not tell which or how nearly."""
        digest = hashlib.sha256(key.encode()).digest()
        return any([hmac.compare_digest(digest, known) for known in self.keys])  # noqa: C419  (all are compared)


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_keys(path: Path | None) -> tuple[bytes, ...]:
    """Digests of the API keys in a file, one a line (# begins a comment), and in the environment. Raises MimoError."""
    lines = os.environ.get(KEYS_VARIABLE, "").replace(",", "\n").splitlines()
    if path is not None:
        try:
            lines += path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise MimoError(f"--api-keys: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    keys = digests(lines)
    if path is not None and not keys:
        raise MimoError(f"--api-keys: expected a key per line in {path}, got none")
    return keys


def digests(keys: Iterable[str]) -> tuple[bytes, ...]:
    """SHA-256 of every key."""
    stripped = (key.partition("#")[0].strip() for key in keys)
    return tuple(hashlib.sha256(key.encode()).digest() for key in stripped if key)
