"""quantized_linear and the format of its weights against their definition, on every backend."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

FORMATS = {"int8": (8, 32), "int4_32": (4, 32), "int4_128": (4, 128)}


def make(count: int, rows: int, columns: int, kind: str, dtype=torch.float32, device="cpu") -> tuple[Tensor, Tensor]:
    """Activations with an outlier in every row, and a quantised weight."""
    x = torch.randn(count, columns)
    x[:, columns // 3] *= 30
    weight = mn.quantize_weight(torch.randn(rows, columns) * torch.rand(rows, 1), *FORMATS[kind])
    return x.to(device, dtype), weight.to(device)


def definition(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """In float64 from where the definition has quantised."""
    x, weight = x.cpu(), weight.cpu()
    wide = reference.quantized_rows(x).double() @ reference.dequantize_weight(weight, x.shape[-1]).double().T
    return wide if bias is None else wide + bias.cpu().double()


def naive(packed: Tensor, row: int, column: int, rows: int, columns: int, kind: str) -> float:
    """One weight, read byte by byte as csrc/include/mimo/weight_format.h draws it."""
    bits, group = FORMATS[kind]
    data = packed.flatten()
    first = row // 16 * 16
    height, row, start = min(16, rows - first), row - first, first * packed.shape[1]
    if bits == 8:
        at = start + row * 4
        scale = data[at : at + 4].view(torch.float32)
        return float((int(data[start + 4 * height + (column // 4 * height + row) * 4 + column % 4]) - 128) * scale)
    at = start + (column // group * height + row) * 2
    scale = data[at : at + 2].clone().view(torch.bfloat16).float()
    numbers = start + columns // group * height * 2
    byte = int(data[numbers + (column // 8 * height + row) * 4 + column % 4])
    return float(((byte >> 4 if column % 8 >= 4 else byte & 15) - 8) * scale)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rows", [16, 5, 37])
def test_the_layout_is_what_the_header_draws(kind, rows) -> None:
    packed = mn.quantize_weight(torch.randn(rows, 256), *FORMATS[kind])
    assert packed.shape == (rows, {"int8": 260, "int4_32": 144, "int4_128": 132}[kind])
    wide = mn.dequantize_weight(packed, 256)
    for row, column in [(0, 0), (rows - 1, 255), (rows // 2, 133), (3, 6)]:
        assert wide[row, column] == naive(packed, row, column, rows, 256, kind)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_weight_moves_by_half_a_step_at_most(kind) -> None:
    bits, group = FORMATS[kind]
    weight = torch.randn(48, 256) * torch.logspace(-8, 4, 48)[:, None]
    weight[7] = 0
    weight[8, :group] = 0
    grouped = weight.view(48, 1 if bits == 8 else -1, 256 if bits == 8 else group)
    most = grouped.abs().amax(2, keepdim=True)
    error = (mn.dequantize_weight(mn.quantize_weight(weight, bits, group), 256).view_as(grouped) - grouped).abs()
    if bits == 8:
        assert (error <= most / 127 * 0.5001).all()
    else:  # 8 is missing: what lies opposite the largest may move by a whole step; a scale's rounding adds 2^-8 of 8
        assert (error <= most / 8 * 1.04).all()
        signed = grouped.gather(2, grouped.abs().argmax(2, keepdim=True))
        same_side = grouped * signed.sign() > -6.5 / 8 * most
        assert (error <= most / 8 * 0.54)[same_side].all()
    assert (error.view(48, 256)[7] == 0).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_quantising_twice_changes_nothing(kind) -> None:
    once = mn.quantize_weight(torch.randn(40, 128), *FORMATS[kind])
    assert torch.equal(mn.quantize_weight(mn.dequantize_weight(once, 128), *FORMATS[kind]), once)


def test_weights_are_quantised_in_parts(monkeypatch) -> None:
    weight = torch.randn(100, 64).bfloat16()
    whole = mn.quantize_weight(weight, 4)
    monkeypatch.setattr("mimo_audio_native.ops.quantized_linear.NUMBERS_AT_ONCE", 3000)
    assert torch.equal(mn.quantize_weight(weight, 4), whole)
    assert torch.equal(whole, reference.quantize_weight(weight, 4))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 16, 128), (3, 37, 256), (8, 48, 384), (15, 5, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_agrees_with_the_definition(backend, kind, count, rows, columns, dtype) -> None:
    x, weight = make(count, rows, columns, kind, dtype, backend.device)
    bias = torch.randn(rows).to(backend.device, dtype)
    for given in (None, bias):
        got = backend.ops.quantized_linear(x, weight, given)
        assert (got.dtype, got.shape) == (dtype, (count, rows))
        wanted = definition(x, weight, given)
        allowed = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
        error = (got.cpu().double() - wanted).abs()
        assert (error <= allowed * (wanted.abs() + wanted.abs().mean())).all()
        plain = reference.quantized_linear(x.cpu(), weight.cpu(), None if given is None else given.cpu())
        assert (plain - got.cpu()).float().norm() <= 3 * allowed * plain.float().norm()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_does_not_depend_on_its_batch(backend, kind) -> None:
    x, weight = make(23, 40, 256, kind, device=backend.device)
    together = backend.ops.quantized_linear(x, weight)
    for rows in (slice(0, 1), slice(5, 7), slice(3, 6), slice(10, 23)):
        assert torch.equal(backend.ops.quantized_linear(x[rows], weight), together[rows])
    grid = x[:20].view(4, 5, 256)
    assert torch.equal(backend.ops.quantized_linear(grid, weight), together[:20].view(4, 5, 40))


@pytest.mark.parametrize("kind", FORMATS)
def test_threads_change_nothing(kind, by_threads) -> None:
    x, weight = make(9, 500, 512, kind)
    first, *others = by_threads(lambda: mn.quantized_linear(x, weight))
    assert all(torch.equal(first, other) for other in others)


PROGRAM = """
import sys, torch, mimo_audio_native as mn
x, *weights = torch.load(sys.argv[1])
torch.save([mn.quantized_linear(x, weight) for weight in weights], sys.argv[2])
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "no vnni"])
def test_every_instruction_set_agrees(isa, tmp_path) -> None:
    """Sums of a group are exact integers everywhere; only the baseline rounds products and sums apart."""
    x, _ = make(7, 16, 256, "int8")
    weights = [make(1, 37, 256, kind)[1] for kind in FORMATS]
    torch.save([x, *weights], tmp_path / "in")
    wish = {"MIMO_CPU_NO_VNNI": "1"} if isa == "no vnni" else {"MIMO_CPU_ISA": isa}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "in", tmp_path / "out"], check=True, env=os.environ | wish
    )
    for weight, got in zip(weights, torch.load(tmp_path / "out"), strict=True):
        wanted = mn.quantized_linear(x, weight)
        assert (got - wanted).norm() <= 1e-6 * wanted.norm()
        assert isa == "baseline" or torch.equal(got, wanted)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_reach_the_result_of_their_row_alone(backend, kind, bad) -> None:
    x, weight = make(4, 20, 128, kind, device=backend.device)
    good = backend.ops.quantized_linear(x, weight)
    x[2, 77] = bad
    got = backend.ops.quantized_linear(x, weight)
    assert got[2].isnan().all()
    assert reference.quantized_linear(x.cpu(), weight.cpu())[2].isnan().all()
    assert torch.equal(got[[0, 1, 3]], good[[0, 1, 3]])


def test_rows_of_zeros_strides_and_nothing_to_do(backend) -> None:
    x, weight = make(6, 20, 128, "int4_32", device=backend.device)
    run = backend.ops.quantized_linear
    x[1] = 0
    whole = run(x, weight)
    assert (whole[1] == 0).all()
    assert torch.equal(run(x.T.contiguous().T, weight), whole)
    assert torch.equal(run(x[::2], weight), whole[::2])
    assert torch.equal(run(x[3], weight), whole[3])
    assert run(x[:0], weight).shape == (0, 20)
    assert run(x, weight[:0]).shape == (6, 0)


def test_registration() -> None:
    x, weight = make(3, 20, 128, "int8")
    bias = torch.randn(20)
    for given in (None, bias):
        torch.library.opcheck(torch.ops.mimo.quantized_linear.default, (x, weight, given))
    compiled = torch.compile(lambda x: mn.quantized_linear(x, weight, bias) + 1, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), mn.quantized_linear(x, weight, bias) + 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(3, 128).double()}, "x must be float32 or bfloat16 or float16, got float64"),
        ({"x": torch.zeros(())}, r"x must be \[.., K\], got float32 \[\]"),
        ({"x": torch.zeros(3, 0)}, "x must have 1 to 1048576 columns"),
        ({"x": torch.zeros(3, 100)}, "weight must be of quantize_weight for 100 columns, a multiple of 32"),
        ({"weight": torch.zeros(20, 132)}, "weight must be uint8, got float32"),
        ({"weight": torch.zeros(20, 131).byte()}, r"132 \(int8\), 72 \(int4, group 32\) .* got uint8 \[20, 131\]"),
        ({"weight": torch.zeros(20).byte()}, r"weight must be 2-D \[N, bytes per row\]"),
        ({"bias": torch.zeros(19)}, r"bias must have an entry per row of weight \(20\), got float32 \[19\]"),
        ({"bias": torch.zeros(20).half()}, "bias must have the dtype of x"),
    ],
)
def test_names_what_is_wrong(changes, message) -> None:
    arguments = {"x": torch.zeros(3, 128), "weight": make(1, 20, 128, "int8")[1], "bias": None} | changes
    with pytest.raises(RuntimeError, match=f"quantized_linear: .*{message}"):
        torch.ops.mimo.quantized_linear(*arguments.values())


@pytest.mark.parametrize(
    ("weight", "bits", "group", "message"),
    [
        (torch.zeros(4, 64), 5, 32, "bits: expected 4 or 8, got 5"),
        (torch.zeros(4, 64), 4, 64, "group: expected 32 or 128, got 64"),
        (torch.zeros(4, 64), 4, 128, "weight: expected columns in a multiple of 128, got 64"),
        (torch.zeros(4, 20), 8, 32, "weight: expected columns in a multiple of 32, got 20"),
        (torch.zeros(64), 8, 32, r"weight: expected floating-point \[N, K\], got torch.float32 \[64\]"),
        (torch.zeros(4, 64).int(), 8, 32, "weight: expected floating-point"),
        (torch.full((4, 64), torch.nan), 8, 32, "weight: expected finite numbers"),
        (torch.full((4, 64), torch.inf), 4, 32, "weight: expected finite numbers"),
    ],
)
def test_what_cannot_be_quantised(weight, bits, group, message) -> None:
    with pytest.raises(ValueError, match=message):
        mn.quantize_weight(weight, bits, group)
