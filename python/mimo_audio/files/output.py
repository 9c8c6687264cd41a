"""Output files that appear whole or not at all: written beside their place under a hidden name, then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from mimo_audio.errors import MimoError


class OutputError(MimoError):
    """A result cannot be written where it was asked for."""


def check_output(path: Path, force: bool) -> None:
    """Raises OutputError if `path` is taken (and not `force`) or cannot be written; meant for before long work."""
    if os.path.isdir(path):  # those of os.path, unlike Path's, answer False where a folder may not be entered
        raise OutputError(f"{path}: expected a file name to write to, got a folder")
    if os.path.exists(path) and not os.path.isfile(path):  # a rename would replace /dev/null by a file
        raise OutputError(f"{path}: expected a file name to write to, got a device or pipe")
    if os.path.exists(path) and not force:
        raise OutputError(f"{path}: exists already; --force overwrites it")
    folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    if not folder.is_dir():
        raise OutputError(f"{path}: cannot write here, {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: cannot write here, no permission for {folder}")


@contextmanager
def atomic_output(path: Path, force: bool = False) -> Iterator[Path]:
    """Yields a new empty file in the folder of `path` (made if needed) that becomes `path` if the block succeeds.

    The name keeps the suffix of `path`. Whatever ends the block early, an interrupt included, removes the file. Raises
    OutputError if `path` exists (without `force`) or cannot be written.
    """
    check_output(path, force)
    partial = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(exist_ok=False)
        mode = partial.stat().st_mode
        yield partial
        check_output(path, force)
        partial.chmod(mode)  # some writers, safetensors' too, put a file of their own in its place
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot write, {error.strerror or error}") from error
    except SafetensorError as error:  # a full disk reaches its writer's caller as this
        raise OutputError(f"{path}: cannot write, {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
