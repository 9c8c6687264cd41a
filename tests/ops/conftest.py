"""Where the op tests run: the native CPU kernels, the CUDA sources on the emulator, and (-m cuda) a real GPU."""

import importlib
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
import torch

import mimo_audio_native as mn

T = TypeVar("T")


class Backend:
    """One place to run an op: `ops.rvq_decode(...)` takes and returns tensors on `device`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = "cuda" if name == "cuda" else "cpu"
        self.ops = torch.ops.mimo_emu if name == "emulator" else torch.ops.mimo

    def take_bad_data(self) -> str:
        """What CUDA kernels have reported since the last call, or ""."""
        if self.name == "cuda":
            torch.cuda.synchronize()
            return mn._C.take_bad_data(torch.cuda.current_device())
        return importlib.import_module("mimo_audio_native._emulator").take_bad_data() if self.name == "emulator" else ""

    def assert_raises(self, message: str, call: Callable[[], object]) -> None:
        """The CPU op raises `message`, a regular expression; a CUDA kernel goes on and reports it."""
        if self.name == "cpu":
            with pytest.raises(RuntimeError, match=message):
                call()
            return
        call()
        reported = self.take_bad_data()
        assert re.search(message, reported), reported
        assert not self.take_bad_data()


@pytest.fixture(params=["cpu", "emulator", pytest.param("cuda", marks=pytest.mark.cuda)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    place = Backend(request.param)
    if request.param == "emulator":
        emulator = pytest.importorskip("mimo_audio_native._emulator", reason="built without MIMO_EMULATOR")
        emulator.shuffle_threads(1)  # a kernel whose result depends on the order of its threads fails here
    yield place
    assert not place.take_bad_data(), "a kernel has met bad data that the test does not know of"


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
