"""rvq_encode with tables: exact codes from all kernels, however hostile the numbers; the cache of the tables."""

import copy
import pickle
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn


def exact_codes(x: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """The definition with float64 scores of the residuals in x's dtype."""
    residual, codes = x.cpu(), []
    for codebook in (c.cpu() for c in codebooks):
        wide = codebook.double()
        dots = (residual.double()[:, None] * wide).sum(-1)  # not @, which need not score equal entries equally
        codes.append((wide.square().sum(1) - 2 * dots).argmin(1))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes)


def encode(backend, x: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Codes with given tables, after checking that those without are the same."""
    x, codebooks = x.to(backend.device), [c.to(backend.device) for c in codebooks]
    codes = backend.ops.rvq_encode(x, codebooks, list(backend.ops.rvq_tables(codebooks)))
    assert torch.equal(codes, backend.ops.rvq_encode(x, codebooks))
    return codes.cpu()


def make(sizes: Sequence[int], dim: int, count: int) -> tuple[Tensor, list[Tensor]]:
    return 3 * torch.randn(count, dim), [torch.randn(size, dim) for size in sizes]


# Widths around the steps of 16 and 32 columns, sizes around tiles of 16 and blocks of 128 entries, few and many rows.
@pytest.mark.parametrize(
    ("sizes", "dim", "count"),
    [
        ([1], 1, 1),
        ([1, 1, 5], 3, 2),
        ([17, 33, 16], 31, 9),
        ([130, 7], 33, 17),
        ([129, 127, 12], 40, 63),
        ([70, 30, 5], 53, 64),
        ([70, 30, 5], 53, 65),
        ([300, 3, 140], 17, 129),
        ([1, 9], 16, 70),
    ],
)
def test_exact_codes_of_all_sizes(backend, sizes, dim, count) -> None:
    x, codebooks = make(sizes, dim, count)
    assert torch.equal(encode(backend, x, codebooks), exact_codes(x, codebooks))


@pytest.mark.parametrize("count", [3, 70])
def test_many_layers_that_shrink(backend, count) -> None:
    """As trained codebooks do: late layers choose among entries much shorter than what the tables sum up."""
    x = torch.randn(count, 24)
    codebooks = [torch.randn(20, 24) * 0.6**layer for layer in range(30)]
    assert torch.equal(encode(backend, x, codebooks), exact_codes(x, codebooks))


@pytest.mark.parametrize("gap", [0.0, 1e-8, 1e-7, 1e-6, 1e-5])
@pytest.mark.parametrize("count", [20, 70])
def test_near_ties_in_late_layers(backend, count, gap) -> None:
    """Entries in pairs that differ by `gap` of their length, and duplicates, in every layer."""
    x, halves = make([12, 9, 30], 37, count)
    codebooks = [torch.cat([half, half + gap * torch.randn_like(half), half]) for half in halves]
    codes = encode(backend, x, codebooks)
    assert torch.equal(codes, exact_codes(x, codebooks))
    assert all((index < len(codebook) * 2 // 3).all() for index, codebook in zip(codes, codebooks, strict=True))


@pytest.mark.parametrize("count", [6, 70])
def test_residuals_that_cancel(backend, count) -> None:
    """The first entries are the rows themselves: what is left is rounding, and everything that follows a close call."""
    x = 100 * torch.randn(count, 29)
    codebooks = [x + 1e-4 * torch.randn_like(x), 1e-4 * torch.randn(40, 29), 1e-6 * torch.randn(40, 29)]
    assert torch.equal(encode(backend, x, codebooks), exact_codes(x, codebooks))


@pytest.mark.parametrize("count", [5, 70])
def test_wide_range_of_magnitudes(backend, count) -> None:
    """Elements, entries and rows over 30 powers of ten, subnormal numbers among them."""
    x, codebooks = make([40, 20, 20], 21, count)
    spread = lambda *sizes: 10 ** (torch.rand(sizes) * 30 - 22)  # noqa: E731
    x = x * spread(count, 1) * spread(1, 21).clamp(min=1e-3, max=1e3)
    codebooks = [c * spread(len(c), 1) for c in codebooks]
    x[0], codebooks[0][3] = 1e-42, 1e-41
    assert torch.equal(encode(backend, x, codebooks), exact_codes(x, codebooks))


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-25, 3e18, 1e25, 1e37])
@pytest.mark.parametrize("count", [4, 66])
def test_overflow_and_underflow(backend, scale, count) -> None:
    x, codebooks = make([20, 9], 24, count)
    x, codebooks = x * scale, [c * scale for c in codebooks]
    assert torch.equal(encode(backend, x, codebooks), exact_codes(x, codebooks))


def test_overflow_of_partial_sums_excludes_nothing(backend) -> None:
    """A dot product of huge terms that cancel: infinite on the way, whichever sign comes first."""
    if backend.name == "cpu":
        return
    signs = torch.tensor([1.0, -1.0]).repeat(20)
    entry = 1e12 * torch.cat([signs[:16], -signs[:16], torch.ones(8)])
    codebook = torch.stack([torch.zeros(40), entry, -entry, entry.flip(0), 0.5 * entry])
    x = 1e27 * torch.cat([signs[:16], signs[:16], 1e-9 * torch.ones(8)])
    for rows in (x[None], x.repeat(70, 1)):
        assert torch.equal(encode(backend, rows, [codebook]), exact_codes(rows, [codebook]))


@pytest.mark.parametrize("count", [9, 70])
def test_rows_that_are_not_finite_disturb_no_other(backend, count) -> None:
    if backend.name == "cpu":
        return  # an error there
    x, codebooks = make([30, 20, 10], 35, count)
    x[2, 4], x[5, 0], x[6, 1] = float("nan"), float("inf"), -float("inf")
    codes = encode(backend, x, codebooks)
    good = [n for n in range(count) if n not in (2, 5, 6)]
    assert torch.equal(codes[:, good], exact_codes(x[good], codebooks))
    assert (codes >= 0).all()
    assert (codes < torch.tensor([[30], [20], [10]])).all()


def test_tables_of_more_codebooks_serve_the_first(backend) -> None:
    for count in (5, 70):
        x, codebooks = make([33, 20, 40], 18, count)
        x, codebooks = x.to(backend.device), [c.to(backend.device) for c in codebooks]
        tables = list(backend.ops.rvq_tables(codebooks))
        for used in (1, 2):
            codes = backend.ops.rvq_encode(x, codebooks[:used], tables)
            assert torch.equal(codes.cpu(), exact_codes(x, codebooks[:used]))


def test_tables_hold_norms_and_products(backend) -> None:
    _, codebooks = make([5, 20, 3], 37, 0)
    entries, norms, products = (t.cpu() for t in backend.ops.rvq_tables([c.to(backend.device) for c in codebooks]))
    if backend.name == "cpu":
        assert not len(entries) + len(norms) + len(products)
        return
    every = torch.cat(codebooks)
    assert entries.shape == (2 * 128 * 64,)
    torch.testing.assert_close(entries.double().sum(), every.double().sum(), rtol=0, atol=1e-4)
    torch.testing.assert_close(norms.view(-1, 2)[:, 0], every.square().sum(1))
    torch.testing.assert_close(norms.view(-1, 2)[:, 1], every.norm(dim=1))
    expected = [(every[:first] @ every[first : first + size].T).flatten() for first, size in ((5, 20), (25, 3))]
    torch.testing.assert_close(products, torch.cat(expected), rtol=0, atol=1e-4 * 37)


def test_both_kinds_of_kernel_do_not_depend_on_the_order_of_threads() -> None:
    emulator = pytest.importorskip("mimo_audio_native._emulator", reason="built without MIMO_EMULATOR or CUDA headers")
    for count in (12, 70):
        x, codebooks = make([70, 30, 5], 53, count)
        x[:, 0] = 0
        codebooks[0][35:] = codebooks[0][:35]  # ties: the exact scores are used, too
        for seed in (1, 2, 3):
            emulator.shuffle_threads(seed)
            try:
                codes = torch.ops.mimo_emu.rvq_encode(x, codebooks)
            finally:
                emulator.shuffle_threads(0)
            assert torch.equal(codes, exact_codes(x, codebooks))


def test_sums_in_row_order_of_more_rows_than_a_piece_is_sorted(backend) -> None:
    x, codebooks = make([40, 1, 3], 5, 700)
    x, codebooks = x.to(backend.device), [c.to(backend.device) for c in codebooks]
    for ours, theirs in zip(
        backend.ops.rvq_quantize(x, codebooks),
        mn.rvq_quantize(x.cpu(), [c.cpu() for c in codebooks]),
        strict=True,
    ):
        assert torch.equal(ours.cpu(), theirs)


def test_opcheck() -> None:
    x, codebooks = make([6, 4], 5, 7)
    torch.library.opcheck(torch.ops.mimo.rvq_tables.default, (codebooks,))
    tables = list(torch.ops.mimo.rvq_tables(codebooks))
    torch.library.opcheck(torch.ops.mimo.rvq_encode.default, (x, codebooks, tables))


def test_the_fake_gives_cuda_sizes() -> None:
    with torch._subclasses.FakeTensorMode():
        codebooks = [torch.empty(size, 37, device="cuda") for size in (5, 20, 3)]
        sizes = [t.shape[0] for t in torch.ops.mimo.rvq_tables(codebooks)]
        wide = [t.shape[0] for t in torch.ops.mimo.rvq_tables([c.double() for c in codebooks])]
    real = [len(t) for t in torch.ops.mimo_emu.rvq_tables([torch.zeros(size, 37) for size in (5, 20, 3)])]
    assert sizes == real
    assert wide == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:2], "tables must be the 3 tensors of rvq_tables, got 2"),
        (lambda t: [t[1], *t[1:]], r"tables\[0\] must be bfloat16, got float32"),
        (lambda t: [t[0], t[1].double(), t[2]], r"tables\[1\] must be float32, got float64"),
        (lambda t: [*t[:2], t[2][None]], r"tables\[2\] must be 1-D \[elements\], got float32 \[1, 24\]"),
        (lambda t: [*t[:2], t[2][1:]], r"tables\[2\] must be rvq_tables' of these codebooks \(24 elements\), got .*23"),
        (lambda t: [t[0][::2], *t[1:]], r"tables\[0\] must be rvq_tables' of these codebooks \(8192 elements\)"),
    ],
)
def test_encode_names_what_is_wrong_with_tables(change, message) -> None:
    pytest.importorskip("mimo_audio_native._emulator", reason="built without MIMO_EMULATOR or CUDA headers")
    x, codebooks = make([6, 4], 5, 7)
    tables = list(torch.ops.mimo_emu.rvq_tables(codebooks))
    with pytest.raises(RuntimeError, match=f"rvq_encode: {message}"):
        torch.ops.mimo_emu.rvq_encode(x, codebooks, change(tables))


# --- the cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch) -> Iterator[list[int]]:
    """Counts how often tables are made: made[0]."""
    count = [0]
    make_tables = torch.ops.mimo.rvq_tables

    def counted(codebooks):
        count[0] += 1
        return make_tables(codebooks)

    monkeypatch.setattr(torch.ops.mimo, "rvq_tables", counted)
    return count


def test_cache_makes_tables_again_when_a_codebook_changes(made) -> None:
    x, codebooks = make([6, 4, 3], 5, 7)
    cache = mn.RvqTables()
    for _ in range(3):
        assert torch.equal(mn.rvq_encode(x, codebooks, cache), exact_codes(x, codebooks))
    assert made == [1]
    mn.rvq_encode(x, codebooks[:2], cache)  # the first of them
    assert made == [1]
    changes = [
        lambda: codebooks[1].lerp_(torch.randn(4, 5), 0.1),
        lambda: codebooks[2].copy_(torch.randn(3, 5)),
        lambda: codebooks[0].__setitem__(2, 0.0),
        lambda: codebooks.__setitem__(0, codebooks[0].clone()),
        lambda: codebooks.reverse(),
    ]
    for number, change in enumerate(changes, 2):
        change()
        for _ in range(2):
            assert torch.equal(mn.rvq_encode(x, codebooks, cache), exact_codes(x, codebooks))
        assert made == [number]


def test_cache_takes_no_new_tensor_for_an_old_one(made) -> None:
    """A tensor freed and another in its memory, with the same version: the cache holds what it compares with."""
    x, (codebook,) = make([6], 5, 7)
    cache = mn.RvqTables()
    for number in range(1, 5):
        mn.rvq_encode(x, [codebook], cache)
        assert made == [number]
        codebook = torch.randn(6, 5)


def test_cache_has_nothing_for_what_it_cannot_watch(made) -> None:
    cache = mn.RvqTables()
    with torch.inference_mode():
        x, codebooks = make([6, 4], 5, 7)
        assert cache.of(codebooks) is None
        assert torch.equal(mn.rvq_encode(x, codebooks, cache), exact_codes(x, codebooks))
    x, codebooks = make([6, 4], 5, 7)
    compiled = torch.compile(lambda v: mn.rvq_encode(v, codebooks, cache), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), exact_codes(x, codebooks))
    assert made == [0]


def test_copies_of_a_cache_are_empty() -> None:
    _, codebooks = make([6, 4], 5, 7)
    cache = mn.RvqTables()
    cache.of(codebooks)
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert other._kept is None


# --- on a GPU --------------------------------------------------------------------------------------------------------

FULL = ([1024, 1024] + [128] * 18, 1280)


@pytest.mark.cuda
@pytest.mark.parametrize("count", [1, 8, 9, 32, 64, 65, 1000])
def test_full_size_on_cuda(count) -> None:
    x, codebooks = make(*FULL, count)
    on_gpu = [c.cuda() for c in codebooks]
    cache = mn.RvqTables()
    codes = mn.rvq_encode(x.cuda(), on_gpu, cache)
    assert torch.equal(codes.cpu(), mn.rvq_encode(x, codebooks))
    exact = [exact_codes(rows, codebooks) for rows in x[:64].split(8)]  # each of 84 MB
    assert torch.equal(codes[:, :64].cpu(), torch.cat(exact, 1))


@pytest.mark.cuda
def test_tensor_cores_keep_the_bound() -> None:
    """The table's error against |e||e'|: the bound of csrc/cuda/rvq_choose.h, and far less on average."""
    codebooks = [c.cuda() for c in make([256, 512], 1280, 0)[1]]
    _, _, products = torch.ops.mimo.rvq_tables(codebooks)
    wide = [c.double() for c in codebooks]
    error = (products.view(256, 512) - wide[0] @ wide[1].T).abs()
    share = error / (wide[0].norm(dim=1)[:, None] * wide[1].norm(dim=1))
    assert share.max() < (252 + 1.01 * 80) * 2**-24
    assert share.mean() < 20 * 2**-24


@pytest.mark.cuda
@pytest.mark.parametrize("count", [5, 200])
def test_graphs_and_streams(count) -> None:
    x, codebooks = make([200, 64, 64], 96, count)
    x, codebooks = x.cuda(), [c.cuda() for c in codebooks]
    cache = mn.RvqTables()
    wanted = mn.rvq_encode(x, codebooks, cache)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        elsewhere = mn.rvq_encode(x, codebooks, cache)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(elsewhere, wanted)
    for tables in (cache, mn.RvqTables(), None):  # kept; wanted first inside a capture; made by the graph itself
        graph, rows = torch.cuda.CUDAGraph(), torch.zeros_like(x)
        with torch.cuda.graph(graph):
            codes = mn.rvq_encode(rows, codebooks, tables)
            quantized = mn.rvq_quantize(rows, codebooks)
        rows.copy_(x)
        graph.replay()
        assert torch.equal(codes, wanted)
        for ours, theirs in zip(quantized, mn.rvq_quantize(x, codebooks), strict=True):
            assert torch.equal(ours, theirs)
