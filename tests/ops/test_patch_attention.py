"""patch_attention against its definition, on every backend: sizes, dtypes, gradients, strides, bad input."""

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference


def make_qkv(
    patches: int, frames: int, heads: int, dim: int, dtype=torch.float32, device="cpu", spread: float = 1.0
) -> list[Tensor]:
    return [(torch.randn(patches, frames, heads, dim) * spread).to(device, dtype) for _ in range(3)]


def make_rotary(positions: int, dim: int, device="cpu") -> tuple[Tensor, Tensor]:
    angles = torch.arange(positions)[:, None] * 10000.0 ** (-torch.arange(0, dim, 2) / dim)
    return angles.cos().to(device), angles.sin().to(device)


def reference_gradients(grad, q, k, v, *rest) -> tuple[Tensor, ...]:
    inputs = [t.detach().requires_grad_() for t in (q, k, v)]
    return torch.autograd.grad(reference.patch_attention(*inputs, *rest), inputs, grad)


def with_gradients(ops, grad, q, k, v, *rest) -> tuple[Tensor, ...]:
    return ops.patch_attention(q, k, v, *rest), *ops.patch_attention_backward(grad, q, k, v, *rest)


def wanted_with_gradients(grad, q, k, v, *rest) -> tuple[Tensor, ...]:
    return reference.patch_attention(q, k, v, *rest), *reference_gradients(grad, q, k, v, *rest)


def relative_error(got: Tensor, wanted: Tensor, at_least: float = 0.0) -> float:
    return float((got.double() - wanted).norm() / max(float(wanted.norm()), at_least))


def assert_equal_bits(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", range(1, 17))
def test_every_number_of_frames(backend, frames, causal) -> None:
    q, k, v = make_qkv(5, frames, 3, 24, device=backend.device)
    rest = (*make_rotary(frames + 2, 24, backend.device), causal, None)
    grad = torch.randn(q.shape).to(q)
    wanted = wanted_with_gradients(grad, q, k, v, *rest)
    for got, w in zip(with_gradients(backend.ops, grad, q, k, v, *rest), wanted, strict=True):
        # a single frame has no gradient towards q and k: there the rounding of terms of v's size remains
        assert relative_error(got, w, float(wanted[3].norm())) < 2e-6


@pytest.mark.parametrize("dim", range(8, 129, 8))
@pytest.mark.parametrize("frames", [4, 8, 11])
def test_every_head_width(backend, frames, dim) -> None:
    q, k, v = make_qkv(3, frames, 2, dim, device=backend.device)
    rest = (*make_rotary(frames, dim, backend.device), False, 0.3)
    grad = torch.randn(q.shape).to(q)
    wanted = wanted_with_gradients(grad, q, k, v, *rest)
    for got, w in zip(with_gradients(backend.ops, grad, q, k, v, *rest), wanted, strict=True):
        assert relative_error(got, w) < 2e-6


@pytest.mark.parametrize(("patches", "frames", "heads", "dim"), [(9, 4, 64, 16), (1, 4, 64, 16), (33, 4, 1, 32)])
@pytest.mark.parametrize("rotary", [False, True])
def test_sizes_of_the_model_in_float64(backend, patches, frames, heads, dim, rotary) -> None:
    q, k, v = make_qkv(patches, frames, heads, dim, torch.float64, backend.device)
    rest = (*(make_rotary(frames, dim, backend.device) if rotary else (None, None)), True, None)
    grad = torch.randn(q.shape).to(q)
    wanted = wanted_with_gradients(grad, q, k, v, *rest)
    for got, w in zip(with_gradients(backend.ops, grad, q, k, v, *rest), wanted, strict=True):
        assert relative_error(got, w) < 1e-13


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("frames", "dim"), [(4, 16), (4, 40), (7, 64), (16, 128)])
def test_half_precision_is_as_exact_as_the_plain_definition(backend, dtype, frames, dim) -> None:
    """Errors against float64 on the same rounded inputs stay below 1.1 times those of the definition run in `dtype`."""
    q, k, v = make_qkv(20, frames, 2, dim, dtype, backend.device)
    rest = (*make_rotary(frames, dim, backend.device), False, None)
    grad = torch.randn(q.shape).to(q)
    exact = wanted_with_gradients(*(t.double() for t in (grad, q, k, v)), *rest)
    plain = wanted_with_gradients(grad, q, k, v, *rest)
    native = with_gradients(backend.ops, grad, q, k, v, *rest)
    for wanted, definition, got in zip(exact, plain, native, strict=True):
        assert got.dtype == dtype
        assert relative_error(got, wanted) < 1.1 * relative_error(definition, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [16, 32, 64])
@pytest.mark.parametrize(("heads", "patches"), [(1, 4), (5, 7), (64, 2)])
@pytest.mark.parametrize(
    ("causal", "rotary", "scale"), [(False, True, None), (True, True, -0.4), (True, False, 0.0), (False, False, 0.3)]
)
def test_four_frames_in_half_precision(backend, dtype, dim, heads, patches, causal, rotary, scale) -> None:
    """The form of four patches at a time: incomplete fours, incomplete groups of heads, scales of either sign."""
    q, k, v = make_qkv(patches, 4, heads, dim, dtype, backend.device)
    rest = (*(make_rotary(4, dim, backend.device) if rotary else (None, None)), causal, scale)
    wanted = reference.patch_attention(*(t.double() for t in (q, k, v)), *rest)
    plain = reference.patch_attention(q, k, v, *rest)
    got = backend.ops.patch_attention(q, k, v, *rest)
    assert relative_error(got, wanted) < 1.05 * relative_error(plain, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_in_its_patch(backend, dtype, bad) -> None:
    q, k, v = make_qkv(6, 4, 5, 16, dtype, backend.device)
    rest = (*make_rotary(4, 16, backend.device), False, None)
    before = backend.ops.patch_attention(q, k, v, *rest)
    for t in (q, k, v):
        t[2, 1, 3, 7] = bad
    after = backend.ops.patch_attention(q, k, v, *rest)
    assert not after[2, :, 3].isfinite().all()
    others = torch.ones(6, 5, dtype=torch.bool)
    others[2, 3] = False
    torch.testing.assert_close(
        after.transpose(1, 2)[others],
        before.transpose(1, 2)[others],
        rtol=0,
        atol=2e-2 if dtype != torch.float32 else 0,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_conversions_reach_the_ends_of_the_range(backend, dtype) -> None:
    """In patches of one frame the output is v itself: every 29th finite value and the infinities come back."""
    values = torch.arange(-(2**15), 2**15, 29, dtype=torch.int32).to(torch.int16).view(dtype)
    values = values[values.isfinite()][:2048]
    infinities = torch.tensor([float("inf"), float("-inf")], dtype=dtype).repeat_interleave(64)
    v = torch.cat([values, infinities]).view(-1, 1, 1, 128).to(backend.device)
    zero = torch.zeros_like(v)
    got = backend.ops.patch_attention(zero, zero, v, None, None, False, None)
    torch.testing.assert_close(got, v, rtol=0, atol=0)


def test_a_patch_alone_gives_the_same_bits(backend) -> None:
    q, k, v = make_qkv(7, 4, 5, 16, torch.bfloat16, backend.device)
    rest = (*make_rotary(4, 16, backend.device), False, None)
    grad = torch.randn(q.shape).to(q)
    together = with_gradients(backend.ops, grad, q, k, v, *rest)
    for i in range(7):
        alone = with_gradients(backend.ops, *(t[i : i + 1] for t in (grad, q, k, v)), *rest)
        assert_equal_bits(alone, tuple(t[i : i + 1] for t in together))


def test_equals_scaled_dot_product_attention(backend) -> None:
    q, k, v = make_qkv(6, 8, 4, 32, device=backend.device)
    for causal in (False, True):
        wide = (t.double().transpose(1, 2) for t in (q, k, v))  # on a GPU torch's float32 kernels round more
        wanted = torch.nn.functional.scaled_dot_product_attention(*wide, is_causal=causal).transpose(1, 2).float()
        got = backend.ops.patch_attention(q, k, v, None, None, causal, None)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_causal_frames_do_not_see_later_ones(backend) -> None:
    q, k, v = make_qkv(2, 6, 3, 16, device=backend.device)
    rest = (*make_rotary(6, 16, backend.device), True, None)
    before = backend.ops.patch_attention(q, k, v, *rest)
    k[:, 4:], v[:, 4:] = 7.0, -7.0
    torch.testing.assert_close(backend.ops.patch_attention(q, k, v, *rest)[:, :4], before[:, :4], rtol=0, atol=0)


def test_huge_scores_do_not_overflow(backend) -> None:
    q, k, v = make_qkv(5, 4, 2, 16, device=backend.device, spread=300.0)
    rest = (None, None, True, None)
    got = with_gradients(backend.ops, torch.randn(q.shape).to(q), q, k, v, *rest)
    assert all(t.isfinite().all() for t in got)
    assert relative_error(got[0], reference.patch_attention(*(t.double() for t in (q, k, v)), *rest)) < 1e-2


def test_reads_slices_of_a_fused_projection(backend) -> None:
    """The same bits from slices of a fused tensor, from other layouts, and from memory that begins anywhere."""
    frames, heads, dim = 4, 2, 16
    qkv = torch.randn(6, frames, 3, heads, dim, device=backend.device)
    rest = (*make_rotary(frames, dim, backend.device), False, None)
    dense = [t.contiguous() for t in qkv.unbind(2)]
    grad = torch.randn(dim, heads, frames, 6, device=backend.device).permute(3, 2, 1, 0)
    wanted = with_gradients(backend.ops, grad.contiguous(), *dense, *rest)
    turned = [t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for t in dense]  # last dimension not contiguous
    every_other = [torch.stack([t, t], 1).flatten(0, 1)[::2] for t in dense]
    apart = [torch.cat([t, t[..., :1]], -1)[..., :dim] for t in dense]  # rows not at multiples of 16 bytes
    shifted = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape) for t in dense]
    for inputs in (qkv.unbind(2), turned, every_other, apart, shifted):
        assert_equal_bits(with_gradients(backend.ops, grad, *inputs, *rest), wanted)


@pytest.mark.parametrize(("patches", "heads"), [(0, 2), (3, 0)])
def test_empty_sizes(backend, patches, heads) -> None:
    q, k, v = make_qkv(patches, 4, heads, 16, device=backend.device)
    assert all(t.shape == q.shape for t in with_gradients(backend.ops, q, q, k, v, None, None, False, None))


def test_results_do_not_depend_on_threads(by_threads) -> None:
    q, k, v = make_qkv(70, 4, 16, 32)
    grad, rest = torch.randn(q.shape), (*make_rotary(4, 32), True, None)
    first, *others = by_threads(lambda: with_gradients(torch.ops.mimo, grad, q, k, v, *rest))
    for other in others:
        assert_equal_bits(other, first)


def test_opcheck() -> None:
    q, k, v = (t.requires_grad_() for t in make_qkv(3, 4, 2, 16))
    rest = (*make_rotary(4, 16), True, None)
    torch.library.opcheck(torch.ops.mimo.patch_attention.default, (q, k, v, *rest))
    q, k, v = (t.detach() for t in (q, k, v))
    torch.library.opcheck(torch.ops.mimo.patch_attention_backward.default, (q, q, k, v, *rest))


@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck(causal) -> None:
    inputs = [t.requires_grad_() for t in make_qkv(2, 3, 1, 8, torch.float64)]
    rest = (*make_rotary(3, 8), causal, 0.5)
    assert torch.autograd.gradcheck(lambda q, k, v: mn.patch_attention(q, k, v, *rest), inputs)


def test_second_derivatives_are_refused() -> None:
    q, k, v = (t.requires_grad_() for t in make_qkv(1, 2, 1, 8))
    (grad,) = torch.autograd.grad(mn.patch_attention(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="patch_attention_backward: second derivatives are not implemented"):
        grad.sum().backward()


def test_compiles_into_one_graph() -> None:
    inputs = make_qkv(3, 4, 2, 16)
    rest = (*make_rotary(4, 16), False, None)

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return mn.patch_attention(q, k, v, *rest) * 2

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    eager_inputs, compiled_inputs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    expected, got = step(*eager_inputs), compiled(*compiled_inputs)
    torch.testing.assert_close(got, expected)
    expected.sum().backward()
    got.sum().backward()
    for a, b in zip(eager_inputs, compiled_inputs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("name", ["cos", "sin"])
def test_rotary_tables_must_not_require_grad(name) -> None:
    q, k, v = make_qkv(2, 4, 2, 16)
    tables = dict(zip(("cos", "sin"), make_rotary(4, 16), strict=True))
    tables[name].requires_grad_()
    with pytest.raises(RuntimeError, match=f"patch_attention: {name} is a constant"):
        mn.patch_attention(q, k, v, **tables)


GOOD = torch.zeros(2, 4, 3, 16)
TABLE = torch.zeros(4, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.zeros(4, 3, 16)}, r"q must be 4-D \[P, G, H, D\], got float32 \[4, 3, 16\]"),
        ({"q": GOOD.long()}, "q must be float32, float64, float16 or bfloat16, got int64"),
        ({"k": torch.zeros(2, 4, 3, 24)}, r"k must have the shape of q \[2, 4, 3, 16\], got float32 \[2, 4, 3, 24\]"),
        ({"v": GOOD.half()}, r"v must have the dtype of q \(float32\), got float16"),
        (dict.fromkeys("qkv", GOOD[..., :12]), "q must have a head width D of 8 to 128 in steps of 8, got"),
        (dict.fromkeys("qkv", torch.zeros(2, 4, 3, 136)), "q must have a head width D of 8 to 128 in steps of 8, got"),
        (dict.fromkeys("qkv", torch.zeros(2, 17, 3, 16)), "q must have 1 to 16 frames per patch, got"),
        (dict.fromkeys("qkv", GOOD[:, :0]), "q must have 1 to 16 frames per patch, got"),
        ({"cos": TABLE}, "cos and sin must be given together, got only cos"),
        ({"sin": TABLE}, "cos and sin must be given together, got only sin"),
        ({"cos": TABLE, "sin": TABLE[:, :4]}, r"sin must be \[positions, head width / 2 = 8\], got float32 \[4, 4\]"),
        ({"cos": TABLE.double(), "sin": TABLE}, "cos must be float32, got float64"),
        ({"cos": TABLE[:3], "sin": TABLE}, "cos must have a row per position, at least 4, got"),
        ({"cos": torch.zeros(5, 8), "sin": TABLE}, r"sin must have the shape of cos \[5, 8\], got"),
        ({"scale": float("nan")}, "scale must be finite, got nan"),
    ],
)
def test_names_what_is_wrong(changes, message) -> None:
    good = {"q": GOOD, "k": GOOD, "v": GOOD, "cos": None, "sin": None, "causal": False, "scale": None}
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mimo.patch_attention(*(good | changes).values())


def test_backward_names_what_is_wrong() -> None:
    rest = (None, None, False, None)
    with pytest.raises(RuntimeError, match=r"grad_out must have the shape of q \[2, 4, 3, 16\], got"):
        torch.ops.mimo.patch_attention_backward(GOOD[:1], GOOD, GOOD, GOOD, *rest)
    with pytest.raises(RuntimeError, match=r"grad_out must have the dtype of q \(float32\), got float64"):
        torch.ops.mimo.patch_attention_backward(GOOD.double(), GOOD, GOOD, GOOD, *rest)
