"""The CUDA emulator itself: right kernels give right results, wrong ones are caught and do not hang."""

import re

import pytest

emulator = pytest.importorskip("mimo_audio_native._emulator", reason="built without MIMO_EMULATOR")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("block_sum", str(sum(range(256)))),
        ("vote", f"{sum(1 << lane for lane in range(0, 32, 3))} 4"),
        ("matrix_product", "right"),
        ("early_launch", "2"),
        ("shared_allowed", "7"),
    ],
)
def test_right_kernels(name: str, result: str, seed: int) -> None:
    emulator.shuffle_threads(seed)
    assert emulator.self_test(name) == result


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deadlock", "lanes of one warp operation name different masks|deadlock"),
        ("lane_outside_its_mask", "whose mask leaves it out .block 0,0,0 thread 1,0,0"),
        ("device_check", r"device check failed: int\(threadIdx.x\) < limit .block 0,0,0 thread 3,0,0"),
        ("too_many_threads", "invalid configuration argument"),
        ("shared_not_allowed", "invalid configuration argument"),
        ("no_wait", "returns without waiting for the kernel before"),
        ("next_before_wait", "the next kernel may start before the one before has ended"),
    ],
)
def test_wrong_kernels_are_reported(name: str, message: str) -> None:
    emulator.shuffle_threads(0)
    outcome = emulator.self_test(name)
    assert outcome.startswith("error: ")
    assert re.search(message, outcome)
    assert emulator.self_test("block_sum") == str(sum(range(256))), "a failed launch must not disturb the next"


def test_a_random_order_of_threads_exposes_a_missing_barrier() -> None:
    results = set()
    for seed in range(8):
        emulator.shuffle_threads(seed)
        results.add(emulator.self_test("missing_barrier"))
    assert results != {str(sum(range(256)))}
