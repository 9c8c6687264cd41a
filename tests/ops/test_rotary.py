"""rotary against its definition, on every backend: bits, strides, tables, gradients, bad input."""

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def make_heads(*shape: int, heads: tuple[int, int] = (3, 2), dtype=torch.float32, device="cpu") -> list[Tensor]:
    """q and k [*shape[:-1], heads, shape[-1]]."""
    *rows, dim = shape
    return [torch.randn(*rows, count, dim).to(device, dtype) for count in heads]


def make_tables(*shape: int, device="cpu") -> list[Tensor]:
    angles = 100 * torch.randn(shape)
    return [angles.cos().to(device), angles.sin().to(device)]


def assert_equal_bits(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert a.is_contiguous()


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The rotation of x [T, H, D] as a product of complex numbers, float64."""
    first, second = x.double().chunk(2, -1)
    product = torch.complex(first, second) * torch.complex(cos.double(), sin.double())[:, None]
    return torch.cat([product.real, product.imag], -1)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [2, 6, 8, 10, 16, 24, 32, 40, 64, 72, 128, 256])
def test_every_head_width_bit_for_bit(backend, dim, dtype, inverse) -> None:
    q, k = make_heads(5, dim, dtype=dtype, device=backend.device)
    tables = make_tables(5, dim // 2, device=backend.device)
    assert_equal_bits(backend.ops.rotary(q, k, *tables, inverse), reference.rotary(q, k, *tables, inverse))


@pytest.mark.parametrize("dtype", DTYPES)
def test_is_a_product_of_complex_numbers(backend, dtype) -> None:
    q, k = make_heads(7, 16, dtype=dtype, device=backend.device)
    cos, sin = make_tables(7, 8, device=backend.device)
    rounding = {torch.float64: 1e-15, torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    there = backend.ops.rotary(q, k, cos, sin)
    for x, y, z in zip((q, k), there, backend.ops.rotary(*there, cos, sin, True), strict=True):
        torch.testing.assert_close(y.double(), turned(x, cos, sin), rtol=rounding, atol=rounding)
        back = max(4 * rounding, 1e-6)  # the tables are float32
        torch.testing.assert_close(z, x, rtol=back, atol=back)


@pytest.mark.parametrize("heads", [(20, 20), (32, 8), (1, 1), (4, 0), (0, 3), (300, 5)])
@pytest.mark.parametrize("rows", [(1,), (333,), (3, 41)])
def test_sizes_of_the_model(backend, rows, heads) -> None:
    """Blocks of one row, of many, of a part of a row; tables for all rows of a batch and for every row of its own."""
    q, k = make_heads(*rows, 64, heads=heads, dtype=torch.bfloat16, device=backend.device)
    for shape in {rows, rows[-1:]}:
        tables = make_tables(*shape, 32, device=backend.device)
        assert_equal_bits(backend.ops.rotary(q, k, *tables), reference.rotary(q, k, *tables))


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_slices_of_a_fused_projection(backend, dtype) -> None:
    """The same bits from slices of a fused tensor, from other layouts, and from memory that begins anywhere."""
    qkv = torch.randn(2, 6, 3, 4, 16).to(backend.device, dtype)
    cos, sin = make_tables(2, 6, 8, device=backend.device)
    dense = [t.contiguous() for t in qkv.unbind(2)[:2]]
    wanted = reference.rotary(*dense, cos, sin)
    turned = [t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for t in dense]  # last dimension not contiguous
    by_head = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in dense]
    every_other = [torch.stack([t, t], 1).flatten(0, 1)[::2] for t in dense]
    apart = [torch.cat([t, t[..., :1]], -1)[..., :16] for t in dense]  # heads not at multiples of 16 bytes
    shifted = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape) for t in dense]
    for q, k in (qkv.unbind(2)[:2], turned, by_head, every_other, apart, shifted, (dense[0], shifted[1])):
        assert_equal_bits(backend.ops.rotary(q, k, cos, sin), wanted)
    tables = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape) for t in (cos, sin)]
    for layout in (tables, [t.mT.contiguous().mT for t in (cos, sin)], [cos, tables[1]]):
        assert_equal_bits(backend.ops.rotary(*dense, *layout), wanted)
    alone = [t[:1].expand(3, -1, -1, -1) for t in dense]  # one row of the batch, three times
    assert_equal_bits(backend.ops.rotary(*alone, cos[0], sin[0]), tuple(t[:1].repeat(3, 1, 1, 1) for t in wanted))


@pytest.mark.parametrize(("rows", "heads"), [((0,), (3, 2)), ((2, 0), (3, 2)), ((0, 4), (3, 2)), ((5,), (0, 0))])
def test_empty_sizes(backend, rows, heads) -> None:
    q, k = make_heads(*rows, 16, heads=heads, device=backend.device)
    got = backend.ops.rotary(q, k, *make_tables(*rows, 8, device=backend.device))
    assert [t.shape for t in got] == [q.shape, k.shape]


def test_not_a_number_stays_in_its_pair(backend) -> None:
    q, k = make_heads(2, 32, dtype=torch.bfloat16, device=backend.device)
    q[1, 2, 3] = float("nan")
    got, _ = backend.ops.rotary(q, k, *make_tables(2, 16, device=backend.device))
    assert got.isnan().nonzero().tolist() == [[1, 2, 3], [1, 2, 19]]


def test_results_do_not_depend_on_threads(by_threads) -> None:
    q, k = make_heads(700, 64)
    tables = make_tables(700, 32)
    first, *others = by_threads(lambda: mn.rotary(q, k, *tables))
    for other in others:
        assert_equal_bits(other, first)


@pytest.mark.parametrize("inverse", [False, True])
def test_opcheck(inverse) -> None:
    q, k = (t.requires_grad_() for t in make_heads(2, 3, 8))
    for shape in ((3, 4), (2, 3, 4)):
        torch.library.opcheck(torch.ops.mimo.rotary.default, (q, k, *make_tables(*shape), inverse))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_gradcheck(shape, inverse) -> None:
    inputs = [t.requires_grad_() for t in make_heads(2, 3, 8, dtype=torch.float64)]
    tables = make_tables(*shape)
    assert torch.autograd.gradcheck(lambda q, k: mn.rotary(q, k, *tables, inverse), inputs)
    assert torch.autograd.gradgradcheck(lambda q, k: mn.rotary(q, k, *tables, inverse), inputs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_the_definition(dtype) -> None:
    inputs = [t.requires_grad_() for t in make_heads(6, 24, dtype=dtype)]
    tables, grads = make_tables(6, 12), make_heads(6, 24, dtype=dtype)
    got, wanted = (torch.autograd.grad(f(*inputs, *tables), inputs, grads) for f in (mn.rotary, reference.rotary))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)
    (alone,) = torch.autograd.grad(mn.rotary(*inputs, *tables)[1].sum(), inputs[1])  # nothing asks for q's
    torch.testing.assert_close(alone, torch.autograd.grad(reference.rotary(*inputs, *tables)[1].sum(), inputs[1])[0])


def test_compiles_into_one_graph() -> None:
    inputs, tables = make_heads(2, 5, 16), make_tables(5, 8)

    def step(q: Tensor, k: Tensor) -> Tensor:
        q, k = mn.rotary(q, k, *tables)
        return q.sum(-2) * k.sum(-2)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    eager_inputs, compiled_inputs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    expected, got = step(*eager_inputs), compiled(*compiled_inputs)
    torch.testing.assert_close(got, expected)
    expected.sum().backward()
    got.sum().backward()
    for a, b in zip(eager_inputs, compiled_inputs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_autocast_changes_nothing() -> None:
    q, k = make_heads(3, 16)
    tables = make_tables(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        got = mn.rotary(q, k, *tables)
    assert_equal_bits(got, mn.rotary(q, k, *tables))


@pytest.mark.parametrize("name", ["cos", "sin"])
def test_tables_must_not_require_grad(name) -> None:
    tables = dict(zip(("cos", "sin"), make_tables(4, 8), strict=True))
    tables[name].requires_grad_()
    with pytest.raises(RuntimeError, match=f"rotary: {name} is a constant"):
        mn.rotary(*make_heads(4, 16), **tables)


GOOD = torch.zeros(2, 4, 3, 16)
TABLE = torch.zeros(4, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.zeros(4, 16)}, r"q must be \[T, H, D\] or \[B, T, H, D\], got float32 \[4, 16\]"),
        (
            {"q": torch.zeros(1, 2, 4, 3, 16)},
            r"q must be \[T, H, D\] or \[B, T, H, D\], got float32 \[1, 2, 4, 3, 16\]",
        ),
        ({"q": GOOD.long()}, "q must be float32, float64, float16 or bfloat16, got int64"),
        ({"q": GOOD[..., :15]}, r"q must have an even head width D, got float32 \[2, 4, 3, 15\]"),
        ({"q": GOOD[..., :0]}, "q must have an even head width D, got"),
        (
            {"k": GOOD[:, :3]},
            r"k must have the shape of q \[2, 4, 3, 16\] but for its heads, got float32 \[2, 3, 3, 16\]",
        ),
        ({"k": GOOD[:1]}, "k must have the shape of q"),
        ({"k": GOOD[..., :8]}, "k must have the shape of q"),
        ({"k": GOOD[0]}, "k must have the shape of q"),
        ({"k": GOOD.half()}, r"k must have the dtype of q \(float32\), got float16"),
        ({"cos": TABLE.double()}, "cos must be float32, got float64"),
        ({"cos": TABLE[:3]}, r"cos must be \[T, D / 2\] = \[4, 8\], or \[B, T, D / 2\] for q \[B, T, H, D\], got"),
        ({"sin": TABLE[:, :4]}, r"sin must be \[T, D / 2\] = \[4, 8\]"),
        ({"sin": TABLE[None]}, r"sin must be \[T, D / 2\] = \[4, 8\]"),
        ({"sin": torch.zeros(2, 4, 8)}, r"sin must have the shape of cos \[4, 8\], got float32 \[2, 4, 8\]"),
        ({"q": GOOD[0], "k": GOOD[0], "cos": torch.zeros(1, 4, 8)}, r"cos must be \[T, D / 2\] = \[4, 8\]"),
        ({"cos": torch.zeros(4, 8, device="meta")}, "cos must be on the device of q"),
    ],
)
def test_names_what_is_wrong(changes, message) -> None:
    good = {"q": GOOD, "k": GOOD, "cos": TABLE, "sin": TABLE}
    with pytest.raises(RuntimeError, match=f"rotary: {message}"):
        torch.ops.mimo.rotary(*(good | changes).values())
