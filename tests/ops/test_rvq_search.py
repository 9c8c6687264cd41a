"""rvq_encode and rvq_quantize: exact codes whatever the batch, threads and device; gradients; bad input."""

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

# Codebook sizes, width, rows. The CPU takes another path for few rows (below 48) than for many.
SHAPES = [([33, 16, 5], 37, 21), ([7], 1, 3), ([1, 40], 16, 50), ([70, 9, 130], 100, 61), ([128] * 4, 64, 8)]


def make(sizes: Sequence[int], dim: int, count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, list[Tensor]]:
    return 3 * torch.randn(count, dim, dtype=dtype), [torch.randn(size, dim, dtype=dtype) for size in sizes]


def exact_codes(x: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """The definition with float64 scores of the residuals in x's dtype."""
    residual, codes = x.cpu(), []
    for codebook in (c.cpu() for c in codebooks):
        wide = codebook.double()
        dots = (residual.double()[:, None] * wide).sum(-1)  # not @, which need not score equal entries equally
        codes.append((wide.square().sum(1) - 2 * dots).argmin(1))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes)


def move(backend, x: Tensor, codebooks: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    return x.to(backend.device), [c.to(backend.device) for c in codebooks]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sizes", "dim", "count"), SHAPES)
def test_encode_is_the_exact_search(backend, sizes, dim, count, dtype) -> None:
    x, codebooks = make(sizes, dim, count, dtype)
    codes = backend.ops.rvq_encode(*move(backend, x, codebooks))
    assert codes.dtype == torch.int64
    assert torch.equal(codes.cpu(), exact_codes(x, codebooks))


@pytest.mark.parametrize("count", [20, 60])
def test_near_ties_are_decided_in_float64(backend, count) -> None:
    # Entry 2 i lies on one side of row i, entry 2 i + 1 opposite at the same distance up to float32 rounding.
    x = torch.randn(count, 48)
    away = torch.randn(count, 48)
    codebook = torch.stack([x + away, x - away], 1).flatten(0, 1)
    expected = exact_codes(x, [codebook])
    assert torch.equal(expected[0] // 2, torch.arange(count))
    assert not torch.equal(reference.rvq_encode(x, [codebook]), expected)  # float32 scores cannot tell
    assert torch.equal(backend.ops.rvq_encode(*move(backend, x, [codebook])).cpu(), expected)


@pytest.mark.parametrize("count", [5, 50])
def test_hundreds_of_candidates(backend, count) -> None:
    x = torch.randn(count, 20)
    codebooks = [torch.randn(20) + 1e-7 * torch.randn(300, 20), torch.randn(4, 20)]
    assert torch.equal(backend.ops.rvq_encode(*move(backend, x, codebooks)).cpu(), exact_codes(x, codebooks))


@pytest.mark.parametrize("count", [20, 60])
def test_exact_ties_go_to_the_smallest_index(backend, count) -> None:
    # Small integers: every score is exact in any arithmetic, and equal scores are frequent.
    x = torch.randint(-2, 3, (count, 6)).float()
    codebooks = [torch.randint(-2, 3, (40, 6)).float(), torch.zeros(5, 6)]
    codebooks[0][20:] = codebooks[0][:20]
    codes = backend.ops.rvq_encode(*move(backend, x, codebooks)).cpu()
    scores = codebooks[0].square().sum(1) - 2 * x @ codebooks[0].T
    first = torch.tensor([int((row == row.min()).nonzero()[0]) for row in scores])
    assert (scores == scores.min(1, keepdim=True).values).sum(1).max() > 2
    assert torch.equal(codes, torch.stack([first, torch.zeros_like(first)]))


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-18, 1e19, 1e30])
@pytest.mark.parametrize("count", [4, 60])
def test_search_survives_float32_overflow_and_underflow(backend, scale, count) -> None:
    x, codebooks = make([20, 9], 24, count)
    x, codebooks = x * scale, [c * scale for c in codebooks]
    assert torch.equal(backend.ops.rvq_encode(*move(backend, x, codebooks)).cpu(), exact_codes(x, codebooks))


@pytest.mark.parametrize("count", [5, 60])
def test_one_huge_entry_or_row_changes_no_other_code(backend, count) -> None:
    x, codebooks = make([20, 9], 24, count)
    codebooks[0][7] *= 1e12
    x[2] *= 1e15
    assert torch.equal(backend.ops.rvq_encode(*move(backend, x, codebooks)).cpu(), exact_codes(x, codebooks))


def test_a_row_alone_equals_the_row_in_any_batch() -> None:
    x, codebooks = make([200, 64, 64], 96, 150)
    together = mn.rvq_encode(x, codebooks)
    order = torch.randperm(len(x))
    assert torch.equal(mn.rvq_encode(x[order], codebooks), together[:, order])
    for size in (1, 7, 47, 49):
        pieces = [mn.rvq_encode(piece, codebooks) for piece in x.split(size)]
        assert torch.equal(torch.cat(pieces, 1), together)


ACROSS_INSTRUCTION_SETS = """
import hashlib, torch, mimo_audio_native as mn
torch.manual_seed(0)
torch.set_num_threads({threads})
out = hashlib.sha256()
for count in (10, 70):
    x = torch.randn(count, 50)
    away = torch.randn(count, 50)
    ties = torch.stack([x + away, x - away], 1).flatten(0, 1)
    quantized, codes, commitment, counts, sums = mn.rvq_quantize(x, [ties, torch.randn(30, 50)])
    for t in (quantized, codes, commitment, counts, sums):
        out.update(t.numpy().tobytes())
print(out.hexdigest())
"""


def test_bits_do_not_depend_on_instruction_set_or_threads() -> None:
    results = set()
    for isa, threads in ((None, 2), ("avx512", 1), ("avx2", 2), ("baseline", 1)):
        environment = {k: v for k, v in os.environ.items() if k != "MIMO_CPU_ISA"} | (
            {"MIMO_CPU_ISA": isa} if isa else {}
        )
        script = ACROSS_INSTRUCTION_SETS.format(threads=threads)
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
        )
        results.add(run.stdout)
    assert len(results) == 1


def test_non_contiguous_and_empty_input(backend) -> None:
    x, codebooks = make([12, 6], 18, 9)
    strided = [c.T.contiguous().T for c in codebooks]
    x, strided = move(backend, x, strided)
    wide = torch.stack([x, x], 2)[:, :, 0]
    assert torch.equal(backend.ops.rvq_encode(wide, strided).cpu(), exact_codes(x, codebooks))
    assert backend.ops.rvq_encode(x[:0], strided).shape == (2, 0)
    quantized, codes, commitment, counts, sums = backend.ops.rvq_quantize(x[:0], strided)
    assert quantized.shape == (0, 18)
    assert codes.shape == (2, 0)
    assert commitment.isnan().all()
    assert not counts.any()
    assert not sums.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sizes", "dim", "count"), SHAPES)
def test_quantize_equals_the_reference(backend, sizes, dim, count, dtype) -> None:
    x, codebooks = make(sizes, dim, count, dtype)
    quantized, codes, commitment, counts, sums = (
        t.cpu() for t in backend.ops.rvq_quantize(*move(backend, x, codebooks))
    )
    expected = reference.rvq_quantize(x, codebooks)
    assert torch.equal(codes, expected[1])
    assert torch.equal(counts, expected[3])
    assert torch.equal(quantized, mn.rvq_decode(codes, codebooks))
    torch.testing.assert_close(quantized, expected[0])
    torch.testing.assert_close(commitment, expected[2])
    torch.testing.assert_close(sums, expected[4])


def test_cuda_kernels_and_cpu_kernels_give_equal_bits(backend) -> None:
    x, codebooks = make([70, 30, 5], 53, 77)
    for ours, theirs in zip(
        backend.ops.rvq_quantize(*move(backend, x, codebooks)), mn.rvq_quantize(x, codebooks), strict=True
    ):
        assert torch.equal(ours.cpu(), theirs)


def test_cuda_kernels_do_not_depend_on_the_order_of_threads() -> None:
    emulator = pytest.importorskip("mimo_audio_native._emulator", reason="built without MIMO_EMULATOR or CUDA headers")
    x, codebooks = make([70, 30, 5], 53, 77)
    expected = mn.rvq_quantize(x, codebooks)
    for seed in (1, 2):
        emulator.shuffle_threads(seed)
        try:
            shuffled = torch.ops.mimo_emu.rvq_quantize(x, codebooks)
        finally:
            emulator.shuffle_threads(0)
        for ours, theirs in zip(shuffled, expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backward_equals_the_reference(backend, dtype) -> None:
    x, codebooks = make([33, 16, 5], 37, 21, dtype)
    x.requires_grad_()
    quantized, codes, commitment, _, _ = reference.rvq_quantize(x, codebooks)
    grads = torch.randn_like(quantized), torch.randn_like(commitment)
    (expected,) = torch.autograd.grad((quantized, commitment), x, grads)
    inputs, books = move(backend, x.detach(), codebooks)
    ours = backend.ops.rvq_quantize_backward(
        *(g.to(backend.device) for g in grads), inputs, codes.to(backend.device), books
    )
    torch.testing.assert_close(ours.cpu(), expected)


def test_gradients() -> None:
    x, codebooks = make([6, 4], 5, 7, torch.float64)
    x.requires_grad_()
    codebooks[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda v: mn.rvq_quantize(v, codebooks)[2], x)
    quantized, codes, _, counts, sums = mn.rvq_quantize(x, codebooks)
    grad = torch.randn_like(quantized)
    grad_x, grad_codebook = torch.autograd.grad(quantized, (x, codebooks[0]), grad, allow_unused=True)
    assert torch.equal(grad_x, grad)  # straight through
    assert grad_codebook is None
    assert not any(t.requires_grad for t in (codes, counts, sums))


def test_opcheck() -> None:
    x, codebooks = make([6, 4], 5, 7)
    torch.library.opcheck(torch.ops.mimo.rvq_encode.default, (x, codebooks))
    torch.library.opcheck(torch.ops.mimo.rvq_quantize.default, (x.clone().requires_grad_(), codebooks))
    codes = mn.rvq_encode(x, codebooks)
    arguments = (torch.randn(7, 5), torch.randn(2), x, codes, codebooks)
    torch.library.opcheck(torch.ops.mimo.rvq_quantize_backward.default, arguments)


def test_compiles_into_one_graph() -> None:
    x, codebooks = make([6, 4], 5, 7)

    def loss(v: Tensor) -> Tensor:
        quantized, _, commitment, _, _ = mn.rvq_quantize(v, codebooks)
        return quantized.square().sum() + commitment.sum() + mn.rvq_encode(v.detach(), codebooks).sum()

    grads = []
    for run in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        run(leaf).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[1], grads[0])


@pytest.mark.parametrize("count", [3, 60])
def test_cpu_names_the_row_or_codebook_that_is_not_finite(count) -> None:
    x, codebooks = make([6, 4], 5, count)
    for bad in (float("nan"), float("inf")):
        rows = x.clone()
        rows[2, 4] = bad
        with pytest.raises(RuntimeError, match="rvq_encode: x must be finite, got NaN or infinity in row 2"):
            mn.rvq_encode(rows, codebooks)
        entries = codebooks[1].clone()
        entries[3, 0] = bad
        with pytest.raises(RuntimeError, match=r"rvq_quantize: codebooks\[1\] must be finite, .* in entry 3"):
            mn.rvq_quantize(x, [codebooks[0], entries])


def test_cuda_gives_rows_that_are_not_finite_valid_codes_and_a_commitment_that_shows_it(backend) -> None:
    if backend.name == "cpu":
        return  # an error there
    x, codebooks = make([6, 4], 5, 9)
    x[2, 4], x[5, 0] = float("nan"), float("inf")
    _, codes, commitment, _, _ = (t.cpu() for t in backend.ops.rvq_quantize(*move(backend, x, codebooks)))
    good = [n for n in range(9) if n not in (2, 5)]
    assert torch.equal(codes[:, good], exact_codes(x[good], codebooks))
    assert (codes >= 0).all()
    assert (codes < torch.tensor([[6], [4]])).all()
    assert not commitment.isfinite().any()


@pytest.mark.parametrize("op", ["rvq_encode", "rvq_quantize"])
@pytest.mark.parametrize(
    ("x", "codebooks", "message"),
    [
        (torch.zeros(5), [torch.zeros(4, 5)], r"x must be 2-D \[N, D\], got float32 \[5\]"),
        (
            torch.zeros(3, 6),
            [torch.zeros(4, 5)],
            r"x must have the width D of codebooks\[0\] \(5\), got float32 \[3, 6\]",
        ),
        (torch.zeros(3, 5).double(), [torch.zeros(4, 5)], r"x must have the dtype of codebooks\[0\] \(float32\)"),
        (
            torch.zeros(3, 5).half(),
            [torch.zeros(4, 5).half()],
            r"codebooks\[0\] must be float32 or float64, got float16",
        ),
        (torch.zeros(3, 5), [], "codebooks must hold at least one tensor"),
        (torch.zeros(3, 5), [torch.zeros(0, 5)], r"codebooks\[0\] must not be empty"),
        (torch.zeros(3, 1), [torch.zeros(1, 1).expand(2**31 + 3, 1)], r"codebooks\[0\] must have at most 2097152 rows"),
    ],
)
def test_search_names_what_is_wrong(op, x, codebooks, message) -> None:
    with pytest.raises(RuntimeError, match=f"{op}: {message}"):
        getattr(torch.ops.mimo, op)(x, codebooks)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        (0, torch.zeros(2, 5), r"grad_quantized must have size 3 in dimension 0, got float32 \[2, 5\]"),
        (1, torch.zeros(2), r"grad_commitment must have size 1 in dimension 0, got float32 \[2\]"),
        (3, torch.zeros(2, 3, dtype=torch.int64), r"codes must be \[1, 3\], got int64 \[2, 3\]"),
        (3, torch.full((1, 3), 4), r"codes\[0, 0\] must be in 0 \.\. 3, got 4"),
    ],
)
def test_backward_names_what_is_wrong(argument, value, message) -> None:
    codes = torch.zeros(1, 3, dtype=torch.int64)
    arguments = [torch.zeros(3, 5), torch.zeros(1), torch.zeros(3, 5), codes, [torch.zeros(4, 5)]]
    arguments[argument] = value
    with pytest.raises(RuntimeError, match=f"rvq_quantize_backward: {message}"):
        torch.ops.mimo.rvq_quantize_backward(*arguments)
