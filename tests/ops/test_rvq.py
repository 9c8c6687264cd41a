"""rvq_decode against its definition, on every backend, with gradients, fakes and bad input."""

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference


def make_codebooks(sizes: list[int], dim: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    return [torch.randn(size, dim, dtype=dtype).to(device) for size in sizes]


def make_codes(sizes: list[int], count: int, device: str = "cpu") -> Tensor:
    return torch.stack([torch.randint(size, (count,)) for size in sizes]).to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("sizes", "dim", "count"), [([16, 16, 8], 37, 19), ([5], 1, 1), ([1024, 128], 64, 0), ([3] * 20, 130, 7)]
)
def test_decode_equals_the_reference(backend, sizes, dim, count, dtype) -> None:
    codebooks, codes = make_codebooks(sizes, dim, dtype, backend.device), make_codes(sizes, count, backend.device)
    for used in (1, len(sizes)):
        expected = reference.rvq_decode(codes[:used], codebooks)
        torch.testing.assert_close(backend.ops.rvq_decode(codes[:used], codebooks), expected, rtol=0, atol=0)


def test_decode_takes_non_contiguous_input(backend) -> None:
    codes = make_codes([9, 9], 12, backend.device)[:, ::2]
    codebooks = [torch.randn(8, 9, device=backend.device).T, torch.randn(9, 16, device=backend.device)[:, ::2]]
    torch.testing.assert_close(
        backend.ops.rvq_decode(codes, codebooks), reference.rvq_decode(codes, codebooks), rtol=0, atol=0
    )


@pytest.mark.parametrize("code", [-1, 5, 2**40])
@pytest.mark.parametrize("dim", [3, 8])
def test_codes_out_of_range(backend, code, dim) -> None:
    """The CPU op raises; a CUDA kernel takes the first entry and reports the place."""
    codebooks, codes = make_codebooks([4, 5], dim, device=backend.device), make_codes([4, 5], 7, backend.device)
    codes[1, 3] = code
    decoded = []
    backend.assert_raises(
        r"^rvq_decode: codes\[1, 3\] must be", lambda: decoded.append(backend.ops.rvq_decode(codes, codebooks))
    )
    x, grad = torch.randn(2, 7, dim, device=backend.device)
    arguments = (grad, torch.randn(2, device=backend.device), x, codes, codebooks)
    backend.assert_raises(
        r"^rvq_quantize_backward: codes\[1, 3\] must be", lambda: backend.ops.rvq_quantize_backward(*arguments)
    )
    codes[1, 3] = 0
    for got in decoded:
        assert torch.equal(got, backend.ops.rvq_decode(codes, codebooks))


def test_decode_opcheck() -> None:
    codebooks = [c.requires_grad_() for c in make_codebooks([4, 3], 5)]
    torch.library.opcheck(torch.ops.mimo.rvq_decode.default, (make_codes([4, 3], 6), codebooks))


def test_decode_gradcheck() -> None:
    codes = make_codes([4, 3], 6)
    codebooks = [c.requires_grad_() for c in make_codebooks([4, 3, 2], 5, torch.float64)]
    assert torch.autograd.gradcheck(lambda *c: mn.rvq_decode(codes, c), codebooks)


def test_decode_compiles_into_one_graph() -> None:
    codes, codebooks = make_codes([4, 3], 6), make_codebooks([4, 3], 5)
    compiled = torch.compile(lambda c, b: mn.rvq_decode(c, b) * 2, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(codes, codebooks), 2 * reference.rvq_decode(codes, codebooks))


@pytest.mark.parametrize(
    ("codes", "codebooks", "message"),
    [
        (
            torch.zeros(2, 3, dtype=torch.int64),
            [torch.zeros(4, 5)],
            r"codes must have at most 1 rows .* got int64 \[2, 3\]",
        ),
        (torch.zeros(1, 3), [torch.zeros(4, 5)], r"codes must be int64, got float32 \[1, 3\] on cpu"),
        (torch.zeros(3, dtype=torch.int64), [torch.zeros(4, 5)], r"codes must be 2-D \[R, N\], got int64 \[3\]"),
        (torch.full((1, 3), 4), [torch.zeros(4, 5)], r"codes\[0, 0\] must be in 0 \.\. 3, got 4"),
        (torch.full((1, 3), -1), [torch.zeros(4, 5)], r"codes\[0, 0\] must be in 0 \.\. 3, got -1"),
        (torch.zeros(1, 3, dtype=torch.int64), [], "codebooks must hold at least one tensor"),
        (
            torch.zeros(1, 3, dtype=torch.int64),
            [torch.zeros(4, 5), torch.zeros(4, 6)],
            r"codebooks\[1\] must have the width D",
        ),
        (
            torch.zeros(1, 3, dtype=torch.int64),
            [torch.zeros(4, 5).half()],
            r"codebooks\[0\] must be float32 or float64, got float16",
        ),
    ],
)
def test_decode_names_what_is_wrong(codes, codebooks, message) -> None:
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mimo.rvq_decode(codes, codebooks)
