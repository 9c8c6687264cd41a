"""stream_layers, stream_up_convolution and stream_istft against their definitions, whatever the cut into calls."""

import copy

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

OPEN = 1 << 40


def rounded(value, dtype):
    """Floating-point tensors in `dtype`, nested."""
    if isinstance(value, list):
        return [rounded(item, dtype) for item in value]
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def layers_arguments(
    rights=(3, 0, 1),
    batch=2,
    heads=3,
    width=10,
    ffn=37,
    left=6,
    delay=2,
    rows=4,
    rms=False,
    activation="gelu",
    dtype=torch.float32,
) -> dict:
    """Arguments of stream_layers but for x: random weights, empty state; rings that a stream soon goes round."""
    dim = heads * width

    def weight(*sizes: int) -> Tensor:
        return torch.randn(sizes) * sizes[-1] ** -0.5

    def norm() -> list[Tensor]:
        return [1 + 0.3 * torch.randn(dim), torch.empty(0) if rms else 0.3 * torch.randn(dim)]

    def block() -> list[Tensor]:
        attention = [2 * weight(dim, dim), weight(dim), 2 * weight(dim, dim), weight(dim, dim), weight(dim)]
        out = [weight(dim, dim), weight(dim)]
        return [*norm(), *attention, *out, *norm(), weight(ffn, dim), weight(ffn), weight(dim, ffn), weight(dim)]

    return {
        "layers": rounded([t for _ in rights for t in block()], dtype),
        "rights": list(rights),
        "cache": torch.zeros(batch, len(rights), 2, heads, left + max(rights) + rows + 3, width, dtype=dtype),
        "behind": torch.zeros(batch, sum(rights), dim, dtype=dtype),
        "frequency": torch.rand(width // 2, dtype=torch.float64),
        "position": torch.zeros(batch, dtype=torch.int64),
        "end": torch.full((batch,), OPEN),
        "active": None,
        "left": left,
        "delay": delay,
        "activation": activation,
        "eps": 1e-5,
    }


def up_arguments(batch=2, inputs=19, outputs=21, kernel=3, stride=2, behind=3, bias=True, dtype=torch.float32) -> dict:
    return {
        "weight": torch.randn(inputs, outputs, kernel).to(dtype),
        "bias": torch.randn(outputs).to(dtype) if bias else None,
        "norm_weight": torch.randn(outputs).to(dtype),
        "norm_bias": torch.randn(outputs).to(dtype),
        "carry": torch.zeros(batch, kernel - stride, outputs),
        "line": torch.zeros(batch, behind, outputs),
        "sums": torch.tensor([[50.0, 3.0, 70.0]], dtype=torch.float64).repeat(batch, 1),
        "position": torch.zeros(batch, dtype=torch.int64),
        "end": torch.full((batch,), OPEN),
        "active": None,
        "stride": stride,
        "group": 2,
        "keep": 0.9,
        "eps": 1e-5,
    }


def istft_arguments(batch=2, n_fft=30, hop=7, advance=True) -> dict:
    return {
        "window": torch.hann_window(n_fft) + 0.1,
        "advance": torch.randn(5, n_fft // 2 + 1) if advance else None,
        "carry": torch.zeros(batch, 2, n_fft - hop),
        "position": torch.full((batch,), -4),
        "end": torch.full((batch,), OPEN),
        "active": None,
        "hop": hop,
        "max_magnitude": 2.0,
    }


OPS = {
    "layers": (mn.stream_layers, reference.stream_layers, layers_arguments, 30),
    "up_convolution": (mn.stream_up_convolution, reference.stream_up_convolution, up_arguments, 19),
    "istft": (mn.stream_istft, reference.stream_istft, istft_arguments, 32),
}
STATE = ("cache", "behind", "carry", "line", "sums")
ops = pytest.mark.parametrize("op", OPS)


def stream(op, x: Tensor, arguments: dict, sizes, active=None) -> Tensor:
    """x [B, N, ..] in calls of so many rows."""
    arguments = copy.deepcopy(arguments)
    results = []
    for chunk in x.split(sizes, 1):
        results.append(op(chunk, *(arguments | {"active": active}).values()))
        arguments["position"] = arguments["position"] + chunk.shape[1]
    return torch.cat(results, 1)


def wide(arguments: dict) -> dict:
    """In float64, which the definition allows."""
    return {name: rounded(value, torch.float64) for name, value in arguments.items()}


def assert_is_its_definition(name: str, tolerance: float = 2e-5, rows: int = 40, **changes) -> None:
    """The first stream stays open, the second one ends half-way."""
    op, definition, make, _ = OPS[name]
    arguments = make(**changes)
    sizes = {
        "layers": changes.get("heads", 3) * changes.get("width", 10),
        "up_convolution": changes.get("inputs", 19),
        "istft": changes.get("n_fft", 30) + 2,
    }
    dtype = changes.get("dtype", torch.float32)
    x = torch.randn(len(arguments["position"]), rows, sizes[name]).to(dtype)
    arguments["end"] = torch.tensor([OPEN, rows // 2])[: len(x)]
    got = stream(op, x, arguments, 4)
    wanted = stream(definition, x.double(), wide(arguments), 4)
    assert got.dtype == dtype
    parts = [(0, None)] * 2
    if name == "layers":  # what comes before a stream and after its end means nothing
        first = arguments["delay"] + sum(arguments["rights"])
        parts = [(first, rows), (first, rows // 2 + first)]
    for mine, other, (start, end) in zip(got, wanted, parts, strict=False):
        torch.testing.assert_close(mine[start:end].double(), other[start:end], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rights", [(0,), (0, 0), (3, 0, 1), (5, 5)])
@pytest.mark.parametrize(("heads", "width"), [(3, 10), (1, 16), (2, 64), (4, 4)])
def test_layers_are_their_definition(rights, heads, width) -> None:
    assert_is_its_definition("layers", rights=rights, heads=heads, width=width)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("rms", [False, True])
def test_activations_and_norms(activation, rms) -> None:
    assert_is_its_definition("layers", activation=activation, rms=rms, batch=1)


@pytest.mark.parametrize("changes", [{}, {"kernel": 2}, {"behind": 0, "bias": False}, {"kernel": 5, "stride": 3}])
@pytest.mark.parametrize("inputs", [1, 19, 64])
def test_up_convolutions_are_their_definition(changes, inputs) -> None:
    assert_is_its_definition("up_convolution", inputs=inputs, **changes)


@pytest.mark.parametrize(("n_fft", "hop"), [(30, 7), (96, 24), (960, 240), (40, 40)])
@pytest.mark.parametrize("advance", [False, True])
def test_istft_is_its_definition(n_fft, hop, advance) -> None:
    assert_is_its_definition("istft", n_fft=n_fft, hop=hop, advance=advance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["layers", "up_convolution"])
def test_half_types(name, dtype) -> None:
    assert_is_its_definition(name, 0.1 if dtype == torch.bfloat16 else 0.02, dtype=dtype, batch=1)


@ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neither_cuts_nor_other_streams_nor_threads_change_a_bit(op, dtype, by_threads) -> None:
    native, _, make, width = OPS[op]
    changes = {} if op == "istft" else {"dtype": dtype}
    arguments = make(batch=3, rows=24, **changes) if op == "layers" else make(batch=3, **changes)
    x = torch.randn(3, 24, width)
    x = x if op == "istft" else x.to(dtype)
    expected, *others = by_threads(lambda: stream(native, x, arguments, 24))
    assert expected.isfinite().all()
    for other in [*others, *(stream(native, x, arguments, sizes) for sizes in (2, 8, [4, 18, 2]))]:
        assert torch.equal(other, expected)
    alone = {name: t[1:2] if name in (*STATE, "position", "end") else t for name, t in arguments.items()}
    assert torch.equal(stream(native, x[1:2], alone, 2), expected[1:2])
    active = torch.tensor([False, True, False])
    assert torch.equal(stream(native, x, arguments, 4, active)[1], expected[1])


@ops
def test_streams_that_do_not_take_part_stay_as_they_are(op) -> None:
    native, definition, make, width = OPS[op]
    arguments = make()
    arguments["position"] = torch.zeros_like(arguments["position"])
    x = torch.randn(2, 4, width)
    for run in (native, definition):
        mine = copy.deepcopy(arguments)
        run(x, *mine.values())
        before = copy.deepcopy(mine)
        mine["active"] = torch.tensor([True, False])
        run(x.flip(1), *mine.values())
        for name in {*STATE} & {*mine}:
            assert torch.equal(mine[name][1], before[name][1]), name
            assert not torch.equal(mine[name][0], before[name][0]), name


def test_a_stream_may_be_long_under_way() -> None:
    """What rows see does not depend on how far the stream is, but for rounding of the angles."""
    arguments = layers_arguments(batch=1, delay=0)
    late = copy.deepcopy(arguments)
    late["position"] += 10**7 // late["cache"].shape[4] * late["cache"].shape[4]
    late["frequency"] = arguments["frequency"] = arguments["frequency"].float().double()  # exact products
    x = torch.randn(1, 60, 30)
    rows = slice(32, None)  # the first see rows from before the stream
    torch.testing.assert_close(
        stream(mn.stream_layers, x, late, 4)[:, rows],
        stream(mn.stream_layers, x, arguments, 4)[:, rows],
        rtol=1e-4,
        atol=1e-4,
    )


@ops
def test_opcheck(op) -> None:
    native, _, make, width = OPS[op]
    arguments = make()
    x = torch.randn(2, 4, width)
    name = native.__name__
    torch.library.opcheck(
        getattr(torch.ops.mimo, name).default,
        (x, *arguments.values()),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


@ops
def test_nothing_to_do(op) -> None:
    native, _, make, width = OPS[op]
    assert len(native(torch.randn(0, 4, width), *make(batch=0).values())) == 0


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        ("layers", {"left": 10}, r"cache must have room for R >= 17 rows"),
        ("layers", {"rights": [3, 0]}, "layers must hold 15 tensors for each of the 2 entries of rights, got 45"),
        ("layers", {"activation": "tanh"}, 'activation must be "gelu", "gelu_tanh", "relu" or "silu", got "tanh"'),
        ("layers", {"behind": torch.zeros(2, 3, 30)}, r"behind must be .* = \[2, 4, 30\].* got float32 \[2, 3, 30\]"),
        ("layers", {"cache": torch.zeros(2, 3, 2, 4, 16, 10)}, "H W = D = 30"),
        ("layers", {"position": torch.zeros(2)}, "position"),
        ("layers", {"position": torch.tensor([0, -1])}, r"position\[1\] must be at least 0, got -1"),
        ("layers", {"end": torch.zeros(3, dtype=torch.int64)}, r"end must have an entry per stream of x \(2\)"),
        ("layers", {"active": torch.zeros(2)}, "active"),
        ("up_convolution", {"group": 3}, r"group must divide the rows of x \(4\), got 3"),
        ("up_convolution", {"stride": 4}, "stride must be 1 to K = 3, got 4"),
        ("up_convolution", {"sums": torch.zeros(2, 3)}, "sums"),
        ("up_convolution", {"norm_bias": torch.zeros(20)}, r"norm_bias must be \[O\] = \[21\], got float32 \[20\]"),
        ("istft", {"hop": 31}, "hop must be 1 to n_fft = 30, got 31"),
        ("istft", {"advance": torch.zeros(3, 15)}, r"advance must be \[P, n_fft / 2 \+ 1 = 16\]"),
        ("istft", {"max_magnitude": 0.0}, "max_magnitude must be positive"),
    ],
)
def test_bad_arguments(op, changes, message) -> None:
    native, _, make, width = OPS[op]
    with pytest.raises(RuntimeError, match=message):
        native(torch.randn(2, 4, width), *(make() | changes).values())
