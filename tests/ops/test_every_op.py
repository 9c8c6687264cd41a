"""The rules that hold for every op, with the calls of scripts/every_op.py: any backend, stream, device, CUDA graph."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

PATH = Path(__file__).parents[2] / "scripts" / "every_op.py"
spec = importlib.util.spec_from_file_location("every_op", PATH)
assert spec
assert spec.loader
every_op = importlib.util.module_from_spec(spec)
sys.modules["every_op"] = every_op
spec.loader.exec_module(every_op)

CALLS = {call.name: call for call in every_op.calls("cpu")}
# A graph of nothing is none: tables of float64 codebooks are empty.
CAPTURED = [name for name in CALLS if not CALLS[name].empty and name != "rvq_tables/float64"]
BUSY = 20_000_000  # clock cycles, about 10 ms: longer than it takes to launch what follows


def cloned(arguments) -> list:
    return [
        a.clone() if isinstance(a, Tensor) else cloned(a) if isinstance(a, (list, tuple)) and len(a) else a
        for a in arguments
    ]


def moved(arguments, device: str) -> list:
    return [
        a.to(device) if isinstance(a, Tensor) else moved(a, device) if isinstance(a, (list, tuple)) and len(a) else a
        for a in arguments
    ]


def tensors(arguments) -> list[Tensor]:
    nested = ([a] if isinstance(a, Tensor) else tensors(a) if isinstance(a, (list, tuple)) else [] for a in arguments)
    return [tensor for part in nested for tensor in part]


def run(ops, call, arguments: list) -> list[Tensor]:
    """What the op returns, and then what it has written to."""
    found = getattr(ops, call.op)(*arguments)
    results = [found] if isinstance(found, Tensor) else list(found)
    return [*results, *(arguments[number] for number in call.writes)]


def assert_equal_bits(got: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_every_op_is_called_also_with_nothing() -> None:
    registered = {str(s.name).removeprefix("mimo::") for s in torch._C._jit_get_all_schemas() if "mimo::" in s.name}
    assert registered
    assert registered == {call.op for call in CALLS.values() if not call.empty}
    never_empty = {"rvq_tables"}  # of codebooks, which hold something
    assert registered - never_empty == {call.op for call in CALLS.values() if call.empty}


@pytest.mark.parametrize("name", [name for name in CALLS if CALLS[name].op != "rvq_tables"])  # the CPU needs none
def test_results_look_as_on_the_cpu_and_arguments_stay(backend, name) -> None:
    """Numbers are checked op by op; here: shapes, dtypes, device, and that inputs are only read."""
    call = CALLS[name]
    if backend.name == "emulator" and call.op in every_op.WITHOUT_CUDA_KERNELS:
        pytest.skip("there is no CUDA kernel to emulate")
    arguments = moved(call.arguments, backend.device)
    before = cloned(arguments)
    wanted = run(torch.ops.mimo, call, cloned(call.arguments))
    for got, like in zip(run(backend.ops, call, arguments), wanted, strict=True):
        assert (got.shape, got.dtype, got.device.type) == (like.shape, like.dtype, backend.device)
        assert torch.equal(got.isfinite().cpu(), like.isfinite())
    for number in call.writes:
        before[number] = arguments[number]
    assert_equal_bits(tensors(arguments), tensors(before))


@pytest.mark.cuda
@pytest.mark.parametrize("name", CAPTURED)
def test_a_graph_of_one_call_gives_the_same_bits_again_and_again(name) -> None:
    call = CALLS[name]
    arguments = moved(call.arguments, "cuda")
    first = cloned(arguments)
    wanted = cloned(run(torch.ops.mimo, call, cloned(arguments)))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a capture may find kernels loaded and their attributes set
        run(torch.ops.mimo, call, arguments)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run(torch.ops.mimo, call, arguments)
    for _ in range(2):
        for result in results:
            result.zero_()
        for tensor, value in zip(tensors(arguments), tensors(first), strict=True):
            tensor.copy_(value)
        graph.replay()
        assert_equal_bits(results, wanted)


@pytest.mark.cuda
@pytest.mark.parametrize("name", CALLS)
def test_works_on_the_current_stream(name) -> None:
    """While the default stream is free and the current one busy: who does not wait for it reads zeros."""
    call = CALLS[name]
    arguments = moved(call.arguments, "cuda")
    values = cloned(arguments)
    wanted = run(torch.ops.mimo, call, cloned(arguments))
    late = [(t, v) for t, v in zip(tensors(arguments), tensors(values), strict=True) if t.is_floating_point()]
    for tensor, _ in late:
        tensor.zero_()
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(BUSY)
        for tensor, value in late:
            tensor.copy_(value)
        results = run(torch.ops.mimo, call, arguments)
    side.synchronize()
    assert_equal_bits(results, wanted)


if torch.cuda.device_count() > 1:  # with one GPU there is nothing to guard

    @pytest.mark.cuda
    @pytest.mark.parametrize("device", range(1, torch.cuda.device_count()))
    @pytest.mark.parametrize("name", CALLS)
    def test_works_on_the_device_of_its_arguments(name, device) -> None:
        call = CALLS[name]
        wanted = run(torch.ops.mimo, call, moved(call.arguments, "cuda:0"))
        got = run(torch.ops.mimo, call, moved(call.arguments, f"cuda:{device}"))
        assert torch.cuda.current_device() == 0
        assert all(t.device.index == device for t in got)
        assert_equal_bits(moved(got, "cuda:0"), wanted)
