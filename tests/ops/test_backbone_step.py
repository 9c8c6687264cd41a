"""backbone_step against its definition, on every backend: shapes, dtypes, batches, padding, long caches, bad input."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference


class Shape(NamedTuple):
    """Sizes of a random backbone: width D; heads, key-value heads and their width."""

    dim: int = 24
    ffn: int = 40
    heads: int = 6
    kv_heads: int = 2
    width: int = 8
    layers: int = 2


SHAPES = {
    "grouped_query": Shape(),
    "plain": Shape(heads=2, kv_heads=2, width=16),
    "one_key_head": Shape(heads=5, kv_heads=1, width=6),
    "odd_sizes": Shape(dim=21, ffn=13, heads=3, kv_heads=3, width=6, layers=1),
    "wide_heads": Shape(dim=17, heads=4, kv_heads=1, width=70, layers=1),
    "widest_heads": Shape(dim=16, heads=3, kv_heads=1, width=256, layers=1),
    "nano_heads": Shape(dim=32, heads=6, kv_heads=2, width=32, layers=1),
    "released_heads": Shape(dim=32, heads=8, kv_heads=2, width=128, layers=1),
}


def make(
    shape: Shape = SHAPES["grouped_query"],
    batch: int = 3,
    length: int = 5,
    padding: list[int] | None = None,
    dtype=torch.float32,
    device="cpu",
    spread: float = 3.0,
    lengths: list[int] | None = None,
) -> dict:
    """Arguments of backbone_step: random weights (q, k, v times `spread`), a cache that holds NaN where nothing is."""

    def weight(*sizes: int) -> Tensor:
        return (torch.randn(sizes) * sizes[-1] ** -0.5).to(device, dtype)

    def gain() -> Tensor:
        return (1 + 0.3 * torch.randn(shape.dim)).to(device, dtype)

    q, k = shape.heads * shape.width, shape.kv_heads * shape.width
    layers = []
    for _ in range(shape.layers):
        projections = [t for rows in (q, k, k) for t in (spread * weight(rows, shape.dim), weight(rows))]
        ffn = [weight(shape.ffn, shape.dim), weight(shape.ffn, shape.dim), weight(shape.dim, shape.ffn)]
        layers += [gain(), *projections, weight(shape.dim, q), gain(), *ffn]
    cache = torch.full((shape.layers, 2, batch, shape.kv_heads, length + 3, shape.width), torch.nan)
    cache[..., :length, :] = torch.randn(*cache.shape[:4], length, shape.width)
    for b, count in enumerate(padding or []):
        cache[:, :, b, :, :count] = torch.inf if count % 2 else torch.nan  # never looked at
    for b, count in enumerate(lengths or []):
        cache[:, :, b, :, count:] = torch.nan
    angles = torch.arange(length + 2)[:, None] * torch.rand(shape.width // 2)
    return {
        "hidden": torch.randn(batch, shape.dim).to(device, dtype),
        "layers": layers,
        "norm": gain(),
        "cache": cache.to(device, dtype),
        "length": length,
        "padding": None if padding is None else torch.tensor(padding, device=device),
        "cos": angles.cos().to(device),
        "sin": angles.sin().to(device),
        "attention_heads": shape.heads,
        "eps": 1e-6,
        "lengths": None if lengths is None else torch.tensor(lengths, device=device),
        "pages": None,
    }


def fresh(arguments: dict) -> dict:
    return arguments | {"cache": arguments["cache"].clone()}


def step(backend, arguments: dict) -> tuple[Tensor, Tensor]:
    """Result and cache afterwards; the arguments stay as they are."""
    arguments = fresh(arguments)
    return backend.ops.backbone_step(*arguments.values()), arguments["cache"]


def positions(arguments: dict) -> list[int]:
    """Every row's new position."""
    given = arguments["lengths"]
    return [arguments["length"]] * len(arguments["hidden"]) if given is None else given.tolist()


def new_entries(cache: Tensor, arguments: dict) -> Tensor:
    """[B, L, 2, N, W]: keys and values at every row's new position."""
    return torch.stack([cache[:, :, b, :, at] for b, at in enumerate(positions(arguments))])


def definition(arguments: dict) -> tuple[Tensor, Tensor]:
    """In float64, which the definition allows; what a row does not see is 0, as it multiplies it with weights of 0."""
    wide = {
        name: [t if t.dtype == torch.uint8 else t.double() for t in value]
        if name == "layers"
        else value.double()
        if isinstance(value, Tensor) and name not in ("padding", "lengths", "pages")
        else value
        for name, value in arguments.items()
    }
    for b, count in enumerate([] if arguments["padding"] is None else arguments["padding"].tolist()):
        wide["cache"][:, :, b, :, :count] = 0
    for b, count in enumerate(positions(arguments)):
        wide["cache"][:, :, b, :, count:] = 0
    return reference.backbone_step(**wide), wide["cache"]


def assert_matches(backend, arguments: dict, tolerance: float) -> None:
    hidden, cache = step(backend, arguments)
    wanted, wanted_cache = definition(arguments)
    assert hidden.dtype == arguments["hidden"].dtype
    torch.testing.assert_close(hidden.double(), wanted, rtol=tolerance, atol=tolerance)
    new, wanted_new = new_entries(cache, arguments).double(), new_entries(wanted_cache, arguments)
    torch.testing.assert_close(new, wanted_new, rtol=tolerance, atol=tolerance)
    for b, at in enumerate(positions(arguments)):  # all else stays as it was
        cache[:, :, b, :, at] = arguments["cache"][:, :, b, :, at]
    assert torch.equal(cache.nan_to_num(7), arguments["cache"].nan_to_num(7))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_is_its_definition(backend, shape, batch) -> None:
    assert_matches(backend, make(shape, batch, device=backend.device), 1e-5)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 63, 64, 255, 256, 257, 700, 2047, 2048, 2111, 4200])
def test_lengths_of_the_cache(backend, length) -> None:
    assert_matches(backend, make(SHAPES["plain"], 2, length, device=backend.device), 1e-5)


@pytest.mark.parametrize(("length", "padding"), [(7, [0, 3, 7]), (600, [599, 0, 300]), (520, [8, 9, 264])])
def test_padding(backend, length, padding) -> None:
    assert_matches(backend, make(SHAPES["grouped_query"], 3, length, padding, device=backend.device), 1e-5)


@pytest.mark.parametrize("padding", [None, [0, 64, 3, 0]], ids=["whole", "padded"])
@pytest.mark.parametrize("lengths", [[0, 64, 63, 5], [2500, 64, 300, 2047]], ids=["short", "long"])
def test_rows_of_different_lengths(backend, lengths, padding) -> None:
    bound = max(lengths) + 60
    shape = SHAPES["grouped_query"]
    assert_matches(backend, make(shape, 4, bound, padding, device=backend.device, lengths=lengths), 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-6), (torch.float16, 2**-9)])
@pytest.mark.parametrize("name", ["grouped_query", "odd_sizes", "widest_heads", "released_heads"])
def test_half_precision(backend, dtype, tolerance, name) -> None:
    """Against the definition in float64 over the same weights, which rounds neither the new keys and values nor the
    result: 2^-9 of numbers up to 4 for bfloat16 (2^-12 for float16), and twice for the next layer's.
    """
    assert_matches(backend, make(SHAPES[name], 3, 270, None, dtype, backend.device, 1.0), tolerance)


def alone(arguments: dict, b: int) -> dict:
    """Row b without the others, without its padding and without room for more."""
    count = 0 if arguments["padding"] is None else int(arguments["padding"][b])
    end = positions(arguments)[b]
    return arguments | {
        "hidden": arguments["hidden"][b : b + 1],
        "cache": arguments["cache"][:, :, b : b + 1, :, count : end + 1].contiguous(),
        "length": end - count,
        "padding": None,
        "lengths": None,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("padding", [None, [0, 1, 300, 599, 600, 17, 344]], ids=["whole", "padded"])
@pytest.mark.parametrize("lengths", [None, [0, 700, 301, 2200, 600, 18, 407]], ids=["even", "ragged"])
def test_rows_depend_neither_on_their_batch_nor_on_padding(backend, dtype, padding, lengths) -> None:
    bound = 600 if lengths is None else 2300
    arguments = make(SHAPES["grouped_query"], 7, bound, padding, dtype, backend.device, lengths=lengths)
    together, cache = step(backend, arguments)
    for b, new in enumerate(new_entries(cache, arguments)):
        own = alone(arguments, b)
        hidden, own_cache = step(backend, own)
        assert torch.equal(hidden[0], together[b])
        assert torch.equal(own_cache[:, :, 0, :, own["length"]], new)


def paged(arguments: dict, size: int) -> dict:
    """The same with the cache in pages of `size` positions, in any order; a page that a row does not see is -1."""
    cache = arguments["cache"]
    batch, most = len(arguments["hidden"]), -(-cache.shape[4] // size)
    rows = torch.nn.functional.pad(cache, (0, 0, 0, most * size - cache.shape[4]), value=torch.nan)
    rows = rows.unflatten(4, (most, size)).transpose(3, 4).flatten(2, 3)  # [L, 2, B M, N, size, W]
    pages = torch.randperm(batch * most + 2)[: batch * most].to(cache.device)
    pool = torch.full((*rows.shape[:2], batch * most + 2, *rows.shape[3:]), torch.nan).to(cache)
    pool[:, :, pages] = rows
    table = pages.view(batch, most).int()
    padding = [0] * batch if arguments["padding"] is None else arguments["padding"].tolist()
    for row, first, last in zip(table, padding, positions(arguments), strict=True):
        row[: first // size] = row[last // size + 1 :] = -1
    return arguments | {"cache": pool, "pages": table}


def unpaged(cache: Tensor, table: Tensor) -> Tensor:
    """[L, 2, B, N, M * size, W]"""
    return cache[:, :, table.long()].transpose(3, 4).flatten(4, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 16, 100, 256])
def test_a_cache_of_pages_gives_the_same_bits(backend, size, dtype) -> None:
    arguments = make(SHAPES["grouped_query"], 3, 400, [0, 250, 5], dtype, backend.device, lengths=[400, 399, 31])
    pool = paged(arguments, size)
    (ours, cache), (wanted, whole) = step(backend, pool), step(backend, arguments)
    assert torch.equal(ours, wanted)
    assert torch.equal(new_entries(unpaged(cache, pool["pages"]), arguments), new_entries(whole, arguments))
    for b, at in enumerate(positions(arguments)):  # all else stays as it was
        page = pool["pages"][b, at // size].long()
        cache[:, :, page, :, at % size] = pool["cache"][:, :, page, :, at % size]
    assert torch.equal(cache.nan_to_num(7), pool["cache"].nan_to_num(7))


def test_the_definition_reads_pages() -> None:
    arguments = make(SHAPES["plain"], 3, 40, [0, 25, 5], lengths=[40, 39, 31])
    wide = paged({**arguments, "cache": arguments["cache"].nan_to_num(0.5, posinf=0.5)}, 8)
    wide["cache"].nan_to_num_(0.25)
    ours = reference.backbone_step(**fresh(wide))
    torch.testing.assert_close(ours, definition(arguments)[0].float(), rtol=1e-4, atol=1e-4)


def test_rows_may_share_pages(backend) -> None:
    """A prefix that two rows have in common lies in the pool once."""
    arguments = make(SHAPES["grouped_query"], 2, 40, device=backend.device)
    arguments["cache"][:, :, 1, :, :32] = arguments["cache"][:, :, 0, :, :32]
    pool = paged(arguments, 16)
    pool["pages"][1, :2] = pool["pages"][0, :2]
    assert torch.equal(step(backend, pool)[0], step(backend, arguments)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_may_be_positions_that_follow_each_other(backend, dtype) -> None:
    """A sequence read in one call, in pieces and a position at a time: the same bits of results and cache."""
    arguments = make(SHAPES["grouped_query"], 1, 0, None, dtype, backend.device)
    count, size = 37, 16
    hidden = torch.randn(count, 24).to(backend.device, dtype)
    table = torch.tensor([[2, 0, 1]], dtype=torch.int32, device=backend.device)
    angles = torch.arange(count)[:, None] * torch.rand(4)

    def read(pieces: list[int]) -> tuple[Tensor, Tensor]:
        pool = torch.full((2, 2, 3, 2, size, 8), torch.nan).to(backend.device, dtype)
        results, start = [], 0
        for piece in pieces:
            at = torch.arange(start, start + piece, device=backend.device)
            given = arguments | {
                "hidden": hidden[start : start + piece],
                "cache": pool,
                "length": count - 1,
                "cos": angles.cos().to(backend.device),
                "sin": angles.sin().to(backend.device),
                "lengths": at,
                "pages": table.expand(piece, -1),
            }
            results.append(backend.ops.backbone_step(*given.values()))
            start += piece
        return torch.cat(results), pool.nan_to_num(7)

    alone = read([1] * count)
    for pieces in ([count], [5, 20, 1, 11]):
        assert all(map(torch.equal, read(pieces), alone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frames", [1, 4, 7])
def test_rows_may_see_each_other(backend, dtype, frames) -> None:
    """Positions of a patch, every one with all of them: against attention without a mask, and alone or in a batch."""
    patches = 3
    arguments = make(SHAPES["plain"], patches * frames, frames - 1, None, dtype, backend.device)
    at = torch.arange(frames).repeat(patches).to(backend.device)
    own = torch.arange(patches, dtype=torch.int32).repeat_interleave(frames)[:, None].to(backend.device)
    shape = SHAPES["plain"]

    def run(pick: slice, ops) -> Tensor:
        pool = torch.full((2, 2, patches, shape.kv_heads, frames, shape.width), torch.nan).to(backend.device, dtype)
        given = arguments | {"hidden": arguments["hidden"][pick], "cache": pool, "lengths": at[pick]}
        given |= {"pages": own[pick], "ends": torch.full_like(at[pick], frames - 1)}
        return ops(*given.values())

    everything = slice(patches * frames)
    together = run(everything, backend.ops.backbone_step)
    wide = reference.backbone_step if dtype == torch.float32 else None
    if wide is not None:
        torch.testing.assert_close(together, run(everything, wide), rtol=1e-4, atol=1e-4)
    if frames > 1:  # the first frame of a patch sees the last
        changed = arguments["hidden"].clone()
        changed[frames - 1] += 1
        before, arguments["hidden"] = arguments["hidden"], changed
        assert not torch.equal(run(everything, backend.ops.backbone_step)[0], together[0])
        arguments["hidden"] = before
    for patch in range(patches):
        pick = slice(patch * frames, (patch + 1) * frames)
        assert torch.equal(run(pick, backend.ops.backbone_step), together[pick])


# On CUDA, products of 1, 2 and 16 warps; of 8, 16 and 32 units of weight rows.
WIDE = Shape(dim=136, ffn=2056, heads=2, kv_heads=1, width=16, layers=1)
WIDEST = WIDE._replace(ffn=4104)


def part(arguments: dict, pick: slice) -> dict:
    return arguments | {"hidden": arguments["hidden"][pick], "cache": arguments["cache"][:, :, pick].contiguous()}


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(torch.float32, WIDE), (torch.bfloat16, WIDE), (torch.bfloat16, WIDEST), (torch.float16, WIDEST)],
)
def test_rows_are_the_same_in_batches_of_every_size(backend, dtype, shape) -> None:
    """In every shape that CUDA's products have by the batch: 8 and 32 rows at once, and what lies on either side."""
    arguments = make(shape, 66, 5, None, dtype, backend.device)
    together, cache = step(backend, arguments)
    for size in (1, 2, 3, 8, 9, 17, 64):
        for pick in (slice(size), slice(66 - size, 66)):
            hidden, own = step(backend, part(arguments, pick))
            assert torch.equal(hidden, together[pick])
            assert torch.equal(own[..., 5, :], cache[:, :, pick, :, 5])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [1, 12])
def test_half_precision_loses_little_but_the_rounding_of_the_result(backend, dtype, batch) -> None:
    """Activations keep 16 bits: the root of the mean squared error is within a tenth of that of the rounding alone."""
    arguments = make(WIDE, batch, 5, None, dtype, backend.device, 1.0)
    wanted, _ = definition(arguments)
    error, rounding = step(backend, arguments)[0].double() - wanted, wanted.to(dtype).double() - wanted
    assert error.square().mean() < 1.1**2 * rounding.square().mean()


@pytest.mark.cuda
def test_a_graph_serves_every_length() -> None:
    """Captured once at any lengths, replayed at others, which are read on the device."""
    arguments = make(SHAPES["released_heads"], 3, 300, None, torch.bfloat16, "cuda", lengths=[0, 0, 0])
    arguments["cache"].copy_(torch.randn(arguments["cache"].shape))
    first = arguments["cache"].clone()
    mn.backbone_step(**arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = mn.backbone_step(**arguments)
    for lengths in ([0, 1, 2], [63, 64, 300], [299, 7, 128]):
        arguments["cache"].copy_(first)
        arguments["lengths"].copy_(torch.tensor(lengths))
        graph.replay()
        replayed, cache = result.clone(), arguments["cache"].clone()
        arguments["cache"].copy_(first)
        assert torch.equal(replayed, mn.backbone_step(**arguments))
        assert torch.equal(cache, arguments["cache"])


def test_results_do_not_depend_on_threads() -> None:
    arguments = make(Shape(64, 256, 4, 2, 16, 2), 9, 700, [0, 1, 2, 600, 700, 5, 6, 7, 8])  # large enough for threads
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results += [mn.backbone_step(**fresh(arguments)) for _ in range(3)]
    torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


def test_steps_follow_each_other(backend) -> None:
    """Three steps into the same cache are the definition's three."""
    arguments = make(SHAPES["grouped_query"], 2, 0, device=backend.device)
    ours, theirs = fresh(arguments), fresh(arguments)
    theirs["cache"].zero_()
    for length in range(2):
        hidden = torch.randn(2, 24, device=backend.device)
        change = {"hidden": hidden, "length": length}
        result = backend.ops.backbone_step(*(ours | change).values())
        torch.testing.assert_close(result, reference.backbone_step(**theirs | change), rtol=1e-5, atol=1e-5)


def test_large_scores(backend) -> None:
    """Keys in the thousands: one position takes all, in whichever piece it lies."""
    arguments = make(SHAPES["plain"], 2, 600, device=backend.device)
    arguments["cache"][:, 0] *= 3000
    assert_matches(backend, arguments, 1e-5)


def test_strides_and_offsets_of_weights_do_not_matter(backend) -> None:
    arguments = make(padding=[0, 1, 2], device=backend.device)
    wanted, _ = step(backend, arguments)

    def strided(t: Tensor) -> Tensor:
        return torch.stack([t, t], -1).flatten(-2)[..., ::2]

    def shifted(t: Tensor) -> Tensor:  # dense, but not on a 16-byte boundary
        return torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape)

    for change in (strided, shifted):
        changed = {
            name: [change(t) for t in value]
            if name == "layers"
            else change(value)
            if isinstance(value, Tensor) and name != "cache"
            else value
            for name, value in fresh(arguments).items()
        }
        result = backend.ops.backbone_step(*changed.values())
        torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)  # CUDA sums up unaligned rows in another order


def test_empty_batch(backend) -> None:
    assert step(backend, make(batch=0, device=backend.device))[0].shape == (0, 24)


def test_opcheck() -> None:
    for padding, lengths in ((None, None), ([0, 1, 5], None), ([0, 1, 5], [3, 1, 5])):
        arguments = make(padding=padding, lengths=lengths)
        arguments["cache"].nan_to_num_(1.0)
        torch.library.opcheck(torch.ops.mimo.backbone_step.default, tuple(arguments.values()))
    torch.library.opcheck(torch.ops.mimo.backbone_step.default, tuple(paged(arguments, 4).values()))


def test_compiles_into_one_graph() -> None:
    arguments = make()
    compiled = torch.compile(lambda **a: mn.backbone_step(**a) + 1, fullgraph=True, backend="aot_eager")
    ours, wanted = fresh(arguments), fresh(arguments)
    assert torch.equal(compiled(**ours), mn.backbone_step(**wanted) + 1)
    assert torch.equal(ours["cache"][..., 5, :], wanted["cache"][..., 5, :])


def with_layer(index: int, tensor: Tensor) -> dict:
    layers = list(make()["layers"])
    layers[index] = tensor
    return {"layers": layers}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": torch.zeros(24)}, r"hidden must be 2-D \[B, D\], got float32 \[24\]"),
        ({"hidden": torch.zeros(3, 24).double()}, "hidden must be float32 or bfloat16 or float16, got float64"),
        ({"layers": []}, "layers must hold 12 tensors per layer, one layer at least, got 0"),
        (with_layer(23, torch.zeros(24, 16)), r"layers\[23\] \(layer 1, down\) must be \[D, F\] = \[24, 40\], got"),
        (with_layer(14, torch.zeros(48).half()), r"layers\[14\] \(layer 1, q bias\) must have the dtype of hidden"),
        ({"norm": torch.zeros(25)}, r"norm must be \[D\] = \[24\], got float32 \[25\]"),
        ({"cache": torch.zeros(2, 3, 2, 8, 8)}, r"cache must be 6-D \[L, 2, B, N, P, W\], got float32 \[2, 3, 2, 8, 8"),
        (
            {"cache": torch.zeros(2, 2, 4, 2, 8, 8)},
            r"cache must be \[L, 2, B, N, P, W\] = \[2, 2, 3, 2, P, 8\], got float32 \[2, 2, 4, 2, 8, 8\]",
        ),
        ({"cache": torch.zeros(2, 2, 3, 2, 8, 8).half()}, "cache must have the dtype of hidden"),
        ({"cache": torch.zeros(2, 2, 3, 8, 2, 8).transpose(3, 4)}, "cache must be contiguous, as it is written in"),
        ({"length": -1}, "length must be 0 to P - 1, .* got -1 for P = 8"),
        ({"length": 8}, "length must be 0 to P - 1, .* got 8 for P = 8"),
        ({"padding": torch.zeros(2).long()}, r"padding must have an entry per row of hidden \(3\), got int64 \[2\]"),
        ({"padding": torch.zeros(3)}, "padding must be int64, got float32"),
        ({"padding": torch.tensor([0, 6, 0])}, r"padding\[1\] must be 0 to length \(5\), got 6"),
        ({"padding": torch.tensor([0, 0, -1])}, r"padding\[2\] must be 0 to length \(5\), got -1"),
        ({"lengths": torch.zeros(2).long()}, r"lengths must have an entry per row of hidden \(3\), got int64 \[2\]"),
        ({"lengths": torch.zeros(3).int()}, "lengths must be int64, got int32"),
        ({"lengths": torch.tensor([0, 6, 0])}, r"lengths\[1\] must be 0 to length \(5\), got 6"),
        (
            {"lengths": torch.tensor([5, 5, 2]), "padding": torch.tensor([0, 0, 3])},
            r"padding\[2\] must be 0 to the row's length \(2\), got 3",
        ),
        ({"ends": torch.zeros(2).long()}, r"ends must have an entry per row of hidden \(3\), got int64 \[2\]"),
        ({"ends": torch.tensor([5, 4, 5])}, r"ends\[1\] must be the row's length \(5\) to length \(5\), got 4"),
        ({"ends": torch.tensor([5, 5, 6])}, r"ends\[2\] must be the row's length \(5\) to length \(5\), got 6"),
        ({"pages": torch.zeros(2, 1).int()}, r"pages must have a row per row of hidden \(3\), got int32 \[2, 1\]"),
        ({"pages": torch.zeros(3, 1).long()}, "pages must be int32, got int64"),
        ({"pages": torch.zeros(3).int()}, r"pages must be 2-D \[B, M\], got int32 \[3\]"),
        ({"pages": torch.zeros(3, 0).int()}, "length must be 0 to P - 1, .* got 5 for P = 0"),
        ({"pages": torch.tensor([[0], [3], [1]]).int()}, r"pages\[1, 0\] must be 0 to 2, got 3"),
        ({"cos": torch.zeros(6, 3)}, r"cos must be \[positions, head width / 2 = 4\], got float32 \[6, 3\]"),
        ({"sin": torch.zeros(5, 4)}, r"sin must have a row per position, at least 6, got float32 \[5, 4"),
        ({"attention_heads": 5}, r"layers\[1\] \(layer 0, q\) must have rows for 5 attention_heads"),
        ({"eps": float("nan")}, "eps must be at least 0 and finite in float32, got nan"),
        ({"eps": 1e300}, r"eps must be at least 0 and finite in float32, got 1e\+300"),
    ],
)
def test_names_what_is_wrong(changes, message) -> None:
    with pytest.raises(RuntimeError, match=f"backbone_step: {message}"):
        torch.ops.mimo.backbone_step(*(make() | changes).values())


@pytest.mark.parametrize(("name", "value"), [("padding", 6), ("padding", -1), ("lengths", 6), ("lengths", -1)])
def test_counts_that_no_row_can_have(backend, name, value) -> None:
    """The CPU op raises; a CUDA kernel lets that row see everything, leaves the others alone and reports it."""
    arguments = make(padding=[0, 0, 0], lengths=[5, 5, 5], device=backend.device)
    wanted, _ = step(backend, arguments)
    arguments[name] = torch.tensor([5 if name == "lengths" else 0, value, 5 if name == "lengths" else 0]).to(
        wanted.device
    )
    results = []
    backend.assert_raises(
        rf"^backbone_step: {name}\[1\] must be 0 to", lambda: results.append(step(backend, arguments)[0])
    )
    for got in results:
        assert torch.equal(got, wanted)


@pytest.mark.parametrize(("value", "table"), [(-1, -1), (41, -1), (-1, "another's"), (40, -1)])
def test_a_row_that_is_wrong_touches_no_page(backend, value, table) -> None:
    """Bad lengths, or good ones and pages that are none: the other rows and the rest of the pool are as without it."""
    arguments = make(SHAPES["grouped_query"], 3, 40, device=backend.device, lengths=[40, 40, 31])
    pool = paged(arguments, 16)
    wanted, whole = step(backend, pool)
    unwritten = torch.zeros(pool["cache"].shape[2], 16, dtype=torch.bool)  # [pages, size]
    unwritten[pool["pages"][1, 40 // 16], 40 % 16] = True  # where the row writes when it is right
    pool["lengths"] = torch.tensor([40, value, 31], device=backend.device)
    pool["pages"][1] = pool["pages"][0] if table == "another's" else table
    named = "lengths" if value != 40 else "pages"
    results = []
    backend.assert_raises(rf"^backbone_step: {named}\[1", lambda: results.extend(step(backend, pool)))
    if backend.name == "cpu":
        return
    got, cache = results
    assert torch.equal(got[[0, 2]], wanted[[0, 2]])
    changed = (cache.nan_to_num(7) != whole.nan_to_num(7)).transpose(2, 3).flatten(0, 2).any(-1).any(0)
    assert changed.tolist() == unwritten.tolist()


FORMATS = {"int8": (8, 32), "int4_32": (4, 32), "int4_128": (4, 128)}
QUANTIZED_SHAPES = {
    "grouped_query": Shape(dim=128, ffn=256, heads=8, kv_heads=2, width=32),
    "heads_within_panels": Shape(dim=128, ffn=128, heads=16, kv_heads=8, width=8),
    "released_heads": Shape(dim=256, ffn=384, heads=4, kv_heads=1, width=128, layers=1),
}


def quantized(arguments: dict, kind: str) -> dict:
    return arguments | {
        "layers": [mn.quantize_weight(t, *FORMATS[kind]) if t.dim() == 2 else t for t in arguments["layers"]]
    }


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", QUANTIZED_SHAPES.values(), ids=QUANTIZED_SHAPES)
@pytest.mark.parametrize("batch", [1, 3, 9])
def test_quantised_weights(backend, kind, shape, batch) -> None:
    """An activation that lies between two steps may be rounded to either: few do, and a step is 1/127 of a group."""
    dense = make(shape, batch, 20, [b % 3 for b in range(batch)], device=backend.device, spread=1.0)
    arguments = quantized(dense, kind)
    hidden, cache = step(backend, arguments)
    wanted, wanted_cache = definition(arguments)
    error, new_error = (
        float((got.double() - wanted).norm() / wanted.norm())
        for got, wanted in (
            (hidden, wanted), (new_entries(cache, arguments), new_entries(wanted_cache, arguments)))
    )  # fmt: skip
    assert error < 5e-3
    assert new_error < 5e-3
    moved = float((definition(dense)[0] - wanted).norm() / wanted.norm())
    assert 3 * error < moved < (0.05 if kind == "int8" else 0.4), "what quantising does to the result"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_with_quantised_weights_do_not_depend_on_their_batch(backend, kind, dtype) -> None:
    shape = QUANTIZED_SHAPES["grouped_query"]
    arguments = quantized(make(shape, 11, 40, dtype=dtype, device=backend.device), kind)
    together, cache = step(backend, arguments)
    for b, new in enumerate(new_entries(cache, arguments)):
        hidden, own_cache = step(backend, alone(arguments, b))
        assert torch.equal(hidden[0], together[b])
        assert torch.equal(own_cache[:, :, 0, :, 40], new)


def test_threads_change_nothing_with_quantised_weights(by_threads) -> None:
    arguments = quantized(make(Shape(512, 1024, 8, 4, 64, 2), 3, 40), "int4_32")
    first, *others = by_threads(lambda: mn.backbone_step(**fresh(arguments)))
    assert all(torch.equal(first, other) for other in others)


def test_quantised_weights_that_do_not_fit() -> None:
    dense = make(QUANTIZED_SHAPES["grouped_query"])
    arguments = quantized(dense, "int4_32")

    def refused(changed: dict[int, Tensor], message: str) -> None:
        layers = list(arguments["layers"])
        for index, tensor in changed.items():
            layers[index] = tensor
        with pytest.raises(RuntimeError, match=f"backbone_step: {message}"):
            torch.ops.mimo.backbone_step(*(arguments | {"layers": layers}).values())

    refused(
        {9: dense["layers"][9]}, r"layers\[9\] \(layer 0, gate\) must be quantised like layers\[1\] .*q\): uint8 \[2"
    )
    refused({1: dense["layers"][1]}, r"layers\[3\] \(layer 0, k\) must have the dtype of hidden")
    refused({11: mn.quantize_weight(dense["layers"][11], 8)}, r"layers\[11\] .*, got uint8 \[128, 260\]")
    refused(
        {1: arguments["layers"][1][:, :70]}, r"layers\[1\] \(layer 0, q\) must be of quantize_weight for 128 columns"
    )
    narrow = make(Shape(dim=32, ffn=40, heads=2, kv_heads=2, width=16))
    layers = [mn.quantize_weight(t, 8) if t.dim() == 2 and t.shape[1] == 32 else t for t in narrow["layers"]]
    with pytest.raises(RuntimeError, match="quantised layers must have Q = 32 and F = 40 in multiples of 32"):
        torch.ops.mimo.backbone_step(*(narrow | {"layers": layers}).values())
