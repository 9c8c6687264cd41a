"""linear against its definition, on every backend: shapes, dtypes, batches, threads, bad input."""

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def make(batch: int, width: int, outputs: int, bias: bool, dtype=torch.float32, device="cpu") -> list[Tensor | None]:
    x, weight = torch.randn(batch, width), torch.randn(outputs, width) * width**-0.5
    return [t if t is None else t.to(device, dtype) for t in (x, weight, torch.randn(outputs) if bias else None)]


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("batch", "width", "outputs"), [(1, 24, 5), (3, 21, 17), (7, 64, 64), (1, 1, 1), (2, 136, 2056)]
)
def test_is_its_definition(backend, batch, width, outputs, bias, dtype) -> None:
    given = make(batch, width, outputs, bias, dtype, backend.device)
    wanted = reference.linear(*(t if t is None else t.double() for t in given))
    got = backend.ops.linear(*given)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), wanted, rtol=ROUNDING[dtype], atol=2 * ROUNDING[dtype])


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("width", "outputs"), [(24, 40), (21, 13), (136, 2056)])
def test_rows_are_the_same_in_batches_of_every_size(backend, width, outputs, dtype) -> None:
    x, weight, bias = make(66, width, outputs, True, dtype, backend.device)
    together = backend.ops.linear(x, weight, bias)
    for size in (1, 2, 3, 8, 9, 17, 64):
        for pick in (slice(size), slice(66 - size, 66)):
            assert torch.equal(backend.ops.linear(x[pick], weight, bias), together[pick])


def test_results_do_not_depend_on_threads(by_threads) -> None:
    given = make(5, 512, 4099, True)
    first, *others = by_threads(lambda: mn.linear(*given))
    assert all(torch.equal(first, other) for other in others)


def test_strides_do_not_matter(backend) -> None:
    x, weight, bias = make(5, 24, 16, True, device=backend.device)
    wide = torch.cat([x, x], 1)[:, :24], weight.T.contiguous().T, torch.stack([bias, bias], 1)[:, 0]
    assert torch.equal(backend.ops.linear(*wide), backend.ops.linear(x, weight, bias))


def test_nothing_to_do(backend) -> None:
    assert backend.ops.linear(*make(0, 8, 4, True, device=backend.device)).shape == (0, 4)
    assert backend.ops.linear(*make(3, 8, 0, False, device=backend.device)).shape == (3, 0)


def test_opcheck() -> None:
    for bias in (False, True):
        torch.library.opcheck(torch.ops.mimo.linear.default, tuple(make(3, 8, 4, bias)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.zeros(3), torch.zeros(2, 3)), r"x must be 2-D \[B, K\], got float32 \[3\]"),
        ((torch.zeros(1, 3).double(), torch.zeros(2, 3).double()), "x must be float32 or bfloat16 or float16, got"),
        ((torch.zeros(1, 3), torch.zeros(2, 4)), r"weight must be \[N, K\] with K = 3 .*, got float32 \[2, 4\]"),
        ((torch.zeros(1, 3), torch.zeros(2, 3).half()), "weight must have the dtype of x"),
        ((torch.zeros(1, 3), torch.zeros(2, 3), torch.zeros(3)), r"bias must be \[N\] = \[2\], got float32 \[3\]"),
        ((torch.zeros(1, 0), torch.zeros(2, 0)), "x must have at most 65535 rows and 1 to"),
    ],
)
def test_names_what_is_wrong(given, message) -> None:
    with pytest.raises(RuntimeError, match=f"linear: {message}"):
        torch.ops.mimo.linear(*given)
