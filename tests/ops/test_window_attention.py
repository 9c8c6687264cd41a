"""window_attention against its definition, on every backend: windows, packs, dtypes, gradients, strides, bad input."""

import itertools

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

WINDOWS = [(-1, -1), (-1, 0), (40, 10), (7, 0), (0, 0), (3, -1), (0, 5), (500, 500)]


def make_qkv(rows: int, heads: int, dim: int, dtype=torch.float32, device="cpu", spread: float = 1.0) -> list[Tensor]:
    return [(torch.randn(rows, heads, dim) * spread).to(device, dtype) for _ in range(3)]


def make_rotary(positions: int, dim: int, device="cpu") -> tuple[Tensor, Tensor]:
    angles = torch.arange(positions)[:, None] * 10000.0 ** (-torch.arange(0, dim, 2) / dim)
    return angles.cos().to(device), angles.sin().to(device)


def offsets(lengths: list[int], device="cpu") -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(device)


def attend(backend, q, k, v, cu_seqlens=None, left=-1, right=-1, cos=None, sin=None, scale=None) -> Tensor:
    return backend.ops.window_attention(q, k, v, cu_seqlens, left, right, cos, sin, scale)[0]


def row_values(backend, q, k, v, *rest) -> tuple[Tensor, Tensor]:
    """out [T, H, D] and the rows' log-sum-exp [T, H], as the gradient needs it."""
    out, lse = backend.ops.window_attention(q, k, v, *rest)
    return out, lse.T


def gradients(backend, grad, q, k, v, *rest) -> tuple[Tensor, Tensor, Tensor]:
    out, lse = backend.ops.window_attention(q, k, v, *rest)
    return backend.ops.window_attention_backward(grad, q, k, v, out, lse, *rest)


def reference_gradients(grad, q, k, v, *rest) -> tuple[Tensor, ...]:
    inputs = [t.detach().requires_grad_() for t in (q, k, v)]
    return torch.autograd.grad(reference.window_attention(*inputs, *rest), inputs, grad)


def relative_error(got: Tensor, wanted: Tensor, at_least: float = 0.0) -> float:
    return float((got.double() - wanted).norm() / max(float(wanted.norm()), at_least))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-13)])
def test_values_and_gradients_equal_the_definition(backend, window, dtype, tolerance) -> None:
    lengths, heads, dim = [37, 1, 0, 150, 64], 2, 24
    rows = sum(lengths)
    q, k, v = make_qkv(rows, heads, dim, dtype, backend.device)
    rest = (offsets(lengths, backend.device), *window, *make_rotary(150, dim, backend.device), None)
    grad = torch.randn(rows, heads, dim).to(q)
    assert relative_error(attend(backend, q, k, v, *rest), reference.window_attention(q, k, v, *rest)) < tolerance
    wanted_gradients = reference_gradients(grad, q, k, v, *rest)
    for got, wanted in zip(gradients(backend, grad, q, k, v, *rest), wanted_gradients, strict=True):
        # a window of one key has no gradient towards q and k: there the rounding of terms of v's size remains
        assert relative_error(got, wanted, float(wanted_gradients[2].norm())) < tolerance


@pytest.mark.parametrize("dim", range(8, 129, 8))
def test_every_head_width(backend, dim) -> None:
    q, k, v = make_qkv(45, 2, dim, device=backend.device)
    rest = (None, 20, 4, *make_rotary(45, dim, backend.device), 0.3)
    grad = torch.randn(45, 2, dim).to(q)
    assert relative_error(attend(backend, q, k, v, *rest), reference.window_attention(q, k, v, *rest)) < 3e-6
    wanted_gradients = reference_gradients(grad, q, k, v, *rest)
    for got, wanted in zip(gradients(backend, grad, q, k, v, *rest), wanted_gradients, strict=True):
        assert relative_error(got, wanted) < 3e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("dim", "window"), [(16, (40, 10)), (32, (49, 5)), (64, (-1, 0)), (128, (-1, -1))])
def test_half_precision_is_as_exact_as_the_plain_definition(backend, dtype, dim, window) -> None:
    """Errors against float64 on the same rounded inputs, beside those of the definition run in `dtype`."""
    q, k, v = make_qkv(170, 2, dim, dtype, backend.device)
    rest = (None, *window, *make_rotary(170, dim, backend.device), None)
    grad = torch.randn(170, 2, dim).to(q)
    wide = [t.double() for t in (q, k, v)]
    exact = [reference.window_attention(*wide, *rest), *reference_gradients(grad.double(), *wide, *rest)]
    plain = [reference.window_attention(q, k, v, *rest), *reference_gradients(grad, q, k, v, *rest)]
    native = [attend(backend, q, k, v, *rest), *gradients(backend, grad, q, k, v, *rest)]
    for wanted, definition, got, bound in zip(exact, plain, native, (1.2, 1.05, 1.05, 1.05), strict=True):
        assert got.dtype == dtype
        assert relative_error(got, wanted) < bound * relative_error(definition, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [8, 16, 24, 32, 56, 64, 72, 128])
@pytest.mark.parametrize(
    ("window", "scale"),
    [
        ((40, 10), None),
        ((30, 34), 0.5),
        ((31, 34), -0.3),
        ((56, 0), 0.0),
        ((57, 0), 0.2),
        ((78, 3), -0.2),
        ((5, -1), 0.0),
    ],
)
def test_half_precision_of_all_widths_and_reaches(backend, dtype, dim, window, scale) -> None:
    """Windows around the widest whose scores lie in registers; more heads than a group; scales of either sign."""
    lengths, heads = [1, 150, 0, 17], 5 if dim <= 16 else 3
    q, k, v = make_qkv(sum(lengths), heads, dim, dtype, backend.device)
    rest = (offsets(lengths, backend.device), *window, *make_rotary(150, dim, backend.device), scale)
    wanted = reference.window_attention(*(t.double() for t in (q, k, v)), *rest)
    plain = reference.window_attention(q, k, v, *rest)
    assert relative_error(attend(backend, q, k, v, *rest), wanted) < 1.2 * relative_error(plain, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("left", "right"), [(49, 5), (33, 17), (65, 47), (2, 1)])
def test_gradient_of_one_row_reaches_exactly_what_it_sees(backend, dtype, left, right) -> None:
    rows, origin = 170, [0, 1, 15, 16, 31, 48, 49, 63, 64, 79, 80, 112, 127, 128, 169]  # one row in every head
    q, k, v = make_qkv(rows, len(origin), 16, dtype, backend.device, spread=0.3)
    grad = torch.zeros_like(q)
    grad[torch.tensor(origin), torch.arange(len(origin))] = 1.0
    offset = torch.arange(rows)[:, None] - torch.tensor(origin)
    seen = (offset >= -left) & (offset <= right)
    rest = (None, left, right, None, None, None)
    grad_q, _, grad_v = (t.cpu() for t in gradients(backend, grad, q, k, v, *rest))
    assert torch.equal((grad_v != 0).any(-1), seen)
    assert not grad_q.abs().amax(-1)[offset != 0].any()
    wanted = reference_gradients(*(t.double().cpu() for t in (grad, q, k, v)), *rest)[0]
    for got, exact in zip(grad_q[offset == 0], wanted[offset == 0], strict=True):
        assert relative_error(got, exact) < 0.04


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.3, -0.3, 0.0])
@pytest.mark.parametrize("window", [(20, 4), (-1, 0)])
def test_second_result_is_the_logarithm_of_the_sum(backend, dtype, scale, window) -> None:
    q, k, v = make_qkv(90, 5, 16, dtype, backend.device, spread=2.0)
    _, lse = backend.ops.window_attention(q, k, v, None, *window, None, None, scale)
    offset = torch.arange(90)[None, :] - torch.arange(90)[:, None]
    hidden = ((offset < -window[0]) & (window[0] >= 0)) | (offset > window[1])
    scores = scale * torch.einsum("ihd,jhd->hij", q.double(), k.double())
    wanted = scores.masked_fill(hidden.to(scores.device), -torch.inf).logsumexp(-1)
    torch.testing.assert_close(lse.double(), wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("left", [6, 60])
def test_results_do_not_depend_on_the_number_of_sequences(backend, dtype, left) -> None:
    """More blocks than a GPU runs at once share the work out in another way."""
    lengths, heads, dim = [2, 1, 0, 3] * 520, 6, 16
    q, k, v = make_qkv(sum(lengths), heads, dim, dtype, backend.device)
    rest = (left, 1, *make_rotary(3, dim, backend.device), None)
    together = backend.ops.window_attention(q, k, v, offsets(lengths, backend.device), *rest)
    few = sum(lengths[:40])
    alone = backend.ops.window_attention(*(t[:few] for t in (q, k, v)), offsets(lengths[:40], backend.device), *rest)
    torch.testing.assert_close(together[0][:few], alone[0], rtol=0, atol=0)
    torch.testing.assert_close(together[1][:, :few], alone[1], rtol=0, atol=0)
    wanted = reference.window_attention(*(t.double() for t in (q, k, v)), offsets(lengths), *rest)
    assert relative_error(together[0], wanted) < 5e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_reads_memory_that_begins_anywhere(backend, dtype) -> None:
    q, k, v = make_qkv(50, 2, 16, dtype, backend.device)
    rotary = make_rotary(50, 16, backend.device)
    wanted = attend(backend, q, k, v, None, 11, 2, *rotary)
    shifted = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape) for t in (q, k, v, *rotary)]
    apart = [torch.cat([t, t[..., :1]], -1)[..., :16] for t in (q, k, v)]  # rows not at multiples of 16 bytes
    fused = torch.stack([q, k, v], 1).unbind(1)
    for inputs in (shifted[:3], apart, fused):
        got = attend(backend, *inputs, None, 11, 2, *shifted[3:])
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_conversions_reach_the_ends_of_the_range(backend, dtype) -> None:
    """In sequences of one row the output is v itself: every 29th finite value and the infinities come back."""
    values = torch.arange(-(2**15), 2**15, 29, dtype=torch.int32).to(torch.int16).view(dtype)
    values = values[values.isfinite()][:2048]
    infinities = torch.tensor([float("inf"), float("-inf")], dtype=dtype).repeat_interleave(64)
    v = torch.cat([values, infinities]).view(-1, 1, 128).to(backend.device)
    zero = torch.zeros_like(v)
    alone = offsets([1] * len(v), backend.device)
    # The CPU's products of bfloat16 pairs take subnormal numbers for zeros.
    smallest = torch.finfo(dtype).tiny if dtype == torch.bfloat16 and backend.name == "cpu" else 0
    torch.testing.assert_close(attend(backend, zero, zero, v, alone), v, rtol=0, atol=smallest)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [(-1, -1), (9, 3), (40, 40)])
def test_packed_sequences_equal_single_ones_bit_for_bit(backend, window, dtype) -> None:
    lengths, dim = [70, 3, 129, 0, 1, 20, 28, 28, 10], 16  # in half precision short ones alone are narrow windows
    q, k, v = make_qkv(sum(lengths), 8, dim, dtype, backend.device)
    grad = torch.randn(q.shape).to(q)
    cos, sin = make_rotary(129, dim, backend.device)
    packed = (offsets(lengths, backend.device), *window, cos, sin, None)
    together = (*row_values(backend, q, k, v, *packed), *gradients(backend, grad, q, k, v, *packed))
    bounds = packed[0].tolist()
    for a, b in itertools.pairwise(bounds):
        one = [t[a:b] for t in (q, k, v)]
        alone = (None, *window, cos, sin, None)
        single = (*row_values(backend, *one, *alone), *gradients(backend, grad[a:b], *one, *alone))
        for got, wanted in zip(together, single, strict=True):
            torch.testing.assert_close(got[a:b], wanted, rtol=0, atol=0)


def test_no_limits_equal_scaled_dot_product_attention(backend) -> None:
    q, k, v = make_qkv(90, 4, 32, device=backend.device)
    wide = (t.double().transpose(0, 1)[None] for t in (q, k, v))  # on a GPU torch's float32 kernels round more
    wanted = torch.nn.functional.scaled_dot_product_attention(*wide)[0].transpose(0, 1).float()
    torch.testing.assert_close(attend(backend, q, k, v), wanted, rtol=1e-5, atol=1e-6)


def test_positions_restart_in_each_sequence(backend) -> None:
    """Rotation depends on differences only: one sequence with shifted tables gives the same result."""
    q, k, v = make_qkv(40, 2, 16, device=backend.device)
    cos, sin = make_rotary(90, 16, backend.device)
    here = attend(backend, q, k, v, None, 12, 4, cos, sin)
    torch.testing.assert_close(here, attend(backend, q, k, v, None, 12, 4, cos[50:], sin[50:]), rtol=1e-4, atol=1e-5)
    assert relative_error(here, attend(backend, q, k, v, None, 12, 4).double()) > 0.01


def test_huge_scores_do_not_overflow(backend) -> None:
    q, k, v = make_qkv(70, 2, 16, device=backend.device, spread=300.0)
    rest = (None, -1, 0, None, None, None)
    wide = [t.double() for t in (q, k, v)]
    out = attend(backend, q, k, v, *rest)
    assert out.isfinite().all()
    assert relative_error(out, reference.window_attention(*wide, *rest)) < 1e-2
    assert all(g.isfinite().all() for g in gradients(backend, torch.randn(q.shape).to(q), q, k, v, *rest))


def test_reads_slices_of_a_fused_projection(backend) -> None:
    qkv = torch.randn(50, 3, 2, 16, device=backend.device)
    rest = (None, 11, 2, *make_rotary(50, 16, backend.device), None)
    q, k, v = qkv.unbind(1)
    dense = [t.contiguous() for t in (q, k, v)]
    grad = torch.randn(16, 2, 50, device=backend.device).permute(2, 1, 0)
    out = attend(backend, q, k, v, *rest)
    torch.testing.assert_close(out, attend(backend, *dense, *rest), rtol=0, atol=0)
    for got, wanted in zip(
        gradients(backend, grad, q, k, v, *rest), gradients(backend, grad.contiguous(), *dense, *rest), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    turned = [t.permute(2, 1, 0).contiguous().permute(2, 1, 0) for t in dense]  # last dimension not contiguous
    every_other = [torch.stack([t, t], 1).flatten(0, 1)[::2] for t in dense]
    for inputs in (turned, every_other):
        torch.testing.assert_close(attend(backend, *inputs, *rest), out, rtol=0, atol=0)


@pytest.mark.parametrize(("rows", "heads", "lengths"), [(0, 2, [0, 0]), (0, 2, []), (0, 2, None), (3, 0, [3])])
def test_empty_sizes(backend, rows, heads, lengths) -> None:
    q, k, v = make_qkv(rows, heads, 16, device=backend.device)
    rest = (None if lengths is None else offsets(lengths, backend.device), 4, 4, None, None, None)
    assert attend(backend, q, k, v, *rest).shape == q.shape
    assert all(g.shape == q.shape for g in gradients(backend, q, q, k, v, *rest))


def test_results_do_not_depend_on_threads(by_threads) -> None:
    q, k, v = make_qkv(300, 3, 32)
    grad, rest = torch.randn(q.shape), (offsets([100, 200]), -1, 5, None, None, None)

    def call() -> list[Tensor]:
        out, lse = torch.ops.mimo.window_attention(q, k, v, *rest)
        return [out, lse, *torch.ops.mimo.window_attention_backward(grad, q, k, v, out, lse, *rest)]

    first, *others = by_threads(call)
    for other in others:
        for got, wanted in zip(other, first, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_opcheck() -> None:
    q, k, v = (t.requires_grad_() for t in make_qkv(9, 2, 16))
    rest = (offsets([4, 5]), 3, 1, *make_rotary(5, 16), None)
    torch.library.opcheck(torch.ops.mimo.window_attention.default, (q, k, v, *rest))
    q, k, v = (t.detach() for t in (q, k, v))
    out, lse = torch.ops.mimo.window_attention(q, k, v, *rest)
    torch.library.opcheck(torch.ops.mimo.window_attention_backward.default, (out, q, k, v, out, lse, *rest))


@pytest.mark.parametrize("window", [(-1, 1), (1, 0)])
def test_gradcheck(window) -> None:
    inputs = [t.requires_grad_() for t in make_qkv(4, 1, 16, torch.float64)]
    rest = (offsets([3, 1]), *window, *make_rotary(3, 16), 0.5)
    assert torch.autograd.gradcheck(lambda q, k, v: mn.window_attention(q, k, v, *rest), inputs)


def test_compiles_into_one_graph() -> None:
    inputs = make_qkv(9, 2, 16)
    rest = (offsets([4, 5]), 3, 1, *make_rotary(5, 16), None)

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return mn.window_attention(q, k, v, *rest) * 2

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    eager_inputs, compiled_inputs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    expected, got = step(*eager_inputs), compiled(*compiled_inputs)
    torch.testing.assert_close(got, expected)
    expected.sum().backward()
    got.sum().backward()
    for a, b in zip(eager_inputs, compiled_inputs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_gradients_of_a_call_that_leaves_the_rest_to_defaults() -> None:
    inputs = [t.requires_grad_() for t in make_qkv(9, 2, 16, torch.float64)]
    got = torch.autograd.grad(mn.window_attention(*inputs).square().sum(), inputs)
    wanted = torch.autograd.grad(reference.window_attention(*inputs).square().sum(), inputs)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", ["cos", "sin"])
def test_rotary_tables_must_not_require_grad(name) -> None:
    q, k, v = make_qkv(4, 2, 16)
    tables = dict(zip(("cos", "sin"), make_rotary(4, 16), strict=True))
    tables[name].requires_grad_()
    with pytest.raises(RuntimeError, match=f"window_attention: {name} is a constant"):
        mn.window_attention(q, k, v, **tables)


GOOD = torch.zeros(4, 2, 16)
TABLE = torch.zeros(4, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.zeros(4, 16)}, r"q must be 3-D \[T, H, D\], got float32 \[4, 16\]"),
        ({"q": GOOD.long()}, "q must be float32, float64, float16 or bfloat16, got int64"),
        ({"k": torch.zeros(4, 2, 24)}, r"k must have the shape of q \[4, 2, 16\], got float32 \[4, 2, 24\]"),
        ({"v": GOOD.half()}, r"v must have the dtype of q \(float32\), got float16"),
        (dict.fromkeys("qkv", torch.zeros(4, 2, 12)), "q must have a head width D of 8 to 128 in steps of 8, got"),
        (dict.fromkeys("qkv", torch.zeros(4, 2, 136)), "q must have a head width D of 8 to 128 in steps of 8, got"),
        ({"cu_seqlens": torch.tensor([0, 4])}, "cu_seqlens must be int32, got int64"),
        ({"cu_seqlens": offsets([4])[None]}, r"cu_seqlens must be 1-D \[B \+ 1\], got int32 \[1, 2\]"),
        ({"cu_seqlens": offsets([4])[:0]}, "cu_seqlens must hold B \\+ 1 offsets"),
        ({"cu_seqlens": offsets([1, 3])[1:]}, "cu_seqlens must begin with 0, got 1"),
        ({"cu_seqlens": offsets([])}, r"cu_seqlens must end with the number of rows T \(4\), got int32 \[1\]"),
        ({"cu_seqlens": offsets([3])}, r"cu_seqlens must end with the number of rows T \(4\), got 3"),
        ({"cu_seqlens": offsets([5, -1])}, "cu_seqlens must not decrease, got 5 then 4 at 2"),
        ({"left": -2}, r"left must be -1 \(no limit\) or at least 0, got -2"),
        ({"right": -7}, r"right must be -1 \(no limit\) or at least 0, got -7"),
        ({"cos": TABLE}, "cos and sin must be given together, got only cos"),
        ({"sin": TABLE}, "cos and sin must be given together, got only sin"),
        ({"cos": TABLE, "sin": TABLE[:, :4]}, r"sin must be \[positions, head width / 2 = 8\], got float32 \[4, 4\]"),
        ({"cos": TABLE.double(), "sin": TABLE}, "cos must be float32, got float64"),
        ({"cos": TABLE[:3], "sin": TABLE}, "cos must have a row per position, at least 4, got"),
        ({"cos": torch.zeros(5, 8), "sin": TABLE}, r"sin must have the shape of cos \[5, 8\], got"),
        ({"scale": float("inf")}, "scale must be finite, got inf"),
    ],
)
def test_names_what_is_wrong(changes, message) -> None:
    good = {"q": GOOD, "k": GOOD, "v": GOOD, "cu_seqlens": None, "left": 1, "right": 1}
    arguments = good | {"cos": None, "sin": None, "scale": None} | changes
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mimo.window_attention(*arguments.values())


def test_backward_names_what_is_wrong() -> None:
    rest = (None, 1, 1, None, None, None)
    out, lse = torch.ops.mimo.window_attention(GOOD, GOOD, GOOD, *rest)
    for grad, row_values, message in [
        (GOOD[:3], lse, r"grad_out must have the shape of q \[4, 2, 16\], got"),
        (GOOD, lse.double(), "lse must be float32, got float64"),
        (GOOD, lse.T, r"lse must be \[H, T\] = \[2, 4\], got"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            torch.ops.mimo.window_attention_backward(grad, GOOD, GOOD, GOOD, out, row_values, *rest)
