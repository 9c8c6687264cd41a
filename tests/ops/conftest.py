"""Where the op tests run: the native CPU kernels, the CUDA sources on the emulator, and (-m cuda) a real GPU."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
import torch

import mimo_audio_native as mn  # noqa: F401  (registers torch.ops.mimo)

T = TypeVar("T")


class Backend:
    """One place to run an op: `ops.rvq_decode(...)` takes and returns tensors on `device`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = "cuda" if name == "cuda" else "cpu"
        self.ops = torch.ops.mimo_emu if name == "emulator" else torch.ops.mimo


@pytest.fixture(params=["cpu", "emulator", pytest.param("cuda", marks=pytest.mark.cuda)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "emulator":
        emulator = pytest.importorskip("mimo_audio_native._emulator", reason="built without MIMO_EMULATOR")
        emulator.shuffle_threads(1)  # a kernel whose result depends on the order of its threads fails here
    return Backend(request.param)


@pytest.fixture
def by_threads() -> Iterator[Callable[[Callable[[], T]], list[T]]]:
    """by_threads(call): what the call returns with 1, 2 and 5 threads, more than a small machine has."""
    before = torch.get_num_threads()

    def results(call: Callable[[], T]) -> list[T]:
        found = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(call())
        return found

    yield results
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
