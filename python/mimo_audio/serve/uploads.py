"""Uploads are decoded by processes of their own, a few at once, in bounded time and memory (decode_worker.py)."""

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimo_audio.errors import AudioError
from mimo_audio.serve.errors import ServeError

SCRIPT = Path(__file__).parent / "decode_worker.py"
WORKERS, SECONDS, MEMORY = 2, 30.0, 2 << 30


class Decoders:
    """Worker processes, started when they are needed."""

    def __init__(self) -> None:
        self._idle: list[asyncio.subprocess.Process] = []
        self._free = asyncio.Semaphore(WORKERS)

    async def decode(self, data: bytes, sample_rate: int, most_seconds: float, name: str = "file") -> Tensor:
        """A file in any known format -> mono [N] float32 at `sample_rate` Hz. Raises AudioError with `name`."""
        async with self._free:
            process = self._idle.pop() if self._idle else await _start()
            try:
                said, sound = await asyncio.wait_for(_ask(process, data, sample_rate, most_seconds), SECONDS)
            except asyncio.TimeoutError as error:
                raise AudioError(f"{name}: takes too long to decode") from error
            except (asyncio.IncompleteReadError, OSError, ValueError) as error:  # a decoder that crashed
                raise AudioError(f"{name}: is damaged, or no recording") from error
            else:
                self._idle.append(process)
            finally:
                if process not in self._idle:  # it may be in the middle of something
                    with suppress(ProcessLookupError):
                        process.kill()
        if "error" in said:
            raise AudioError(f"{name}: {said['error']}")
        return torch.from_numpy(np.frombuffer(sound, "<f4").copy())

    def close(self) -> None:
        """Ends the processes."""
        while self._idle:
            with suppress(ProcessLookupError):
                self._idle.pop().kill()


async def _start() -> asyncio.subprocess.Process:
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(SCRIPT), stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, limit=1 << 20,
        env={**environment, "OPENBLAS_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip


async def _ask(
    process: asyncio.subprocess.Process, data: bytes, sample_rate: int, most_seconds: float
) -> tuple[dict[str, object], bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    asked = {"bytes": len(data), "rate": sample_rate, "seconds": most_seconds, "memory": MEMORY}
    process.stdin.write(json.dumps(asked).encode() + b"\n" + data)
    await process.stdin.drain()
    said = json.loads(await process.stdout.readline())
    return said, await process.stdout.readexactly(4 * said.get("samples", 0))


def check_size(data: bytes, most: int, name: str = "file") -> bytes:
    """Raises ServeError for nothing and for too much."""
    if not data:
        raise ServeError(400, f"{name}: expected a recording, got an empty file", "invalid_value", name)
    if len(data) > most:
        raise ServeError(413, f"{name}: expected at most {most} bytes, got {len(data)}", "request_too_large", name)
    return data
