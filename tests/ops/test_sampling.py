"""sample against its definition and golden data, on every backend: filters, ties, frequencies, bad input."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference
from mimo_audio_native.reference.sampling import filter_scores, philox, philox_uniform

GOLDEN = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden"))
NONE = -math.inf


def settings(rows: int, temperature=1.0, top_k=0, top_p=1.0, seed=0, offset=None, device="cpu") -> list[Tensor]:
    """The arguments after logits: the same for all rows, but offsets count from 0 unless `offset` is given."""
    offsets = torch.arange(rows) if offset is None else torch.full((rows,), offset)
    numbers = (torch.full((rows,), x, dtype=d) for x, d in ((temperature, torch.float32), (top_k, torch.int32)))
    every = [*numbers, torch.full((rows,), top_p), torch.full((rows,), seed), offsets]
    return [t.to(device) for t in every]


def random_settings(rows: int, vocabulary: int, device="cpu") -> list[Tensor]:
    """Every mixture of greedy and warm rows, top-k off, small, ordinary and beyond the vocabulary, top-p off and on."""
    temperature = torch.where(torch.rand(rows) < 0.15, 0.0, torch.rand(rows) * 2 + 0.05)
    top_k = torch.randint(-2, 2 * vocabulary, (rows,))
    top_k = torch.where(torch.rand(rows) < 0.5, top_k % 50, top_k).int()
    top_p = torch.where(torch.rand(rows) < 0.2, 1.0, torch.rand(rows) * 1.2 - 0.1)
    seeds, offsets = torch.randint(-(2**62), 2**62, (2, rows))
    return [t.to(device) for t in (temperature, top_k, top_p, seeds, offsets)]


def draw(ops, logits: Tensor, *rest: Tensor | int) -> Tensor:
    """The op; without a stream, stream 0."""
    return ops.sample(logits, *rest, *([0] if len(rest) == 5 else []))


def assert_draws(tokens: Tensor, logits: Tensor, rest: list[Tensor], stream: int = 0) -> None:
    """Each token is the definition's, except where its uniform number lies within 1e-6 of a boundary."""
    allowed = 1e-6
    rows = zip(tokens.tolist(), logits.cpu(), *(t.tolist() for t in rest), strict=True)
    for token, row, temperature, top_k, top_p, seed, offset in rows:
        if temperature == 0:
            assert token == int(row.float().argmax())
            continue
        scores = filter_scores(row, temperature, top_k, top_p)
        probability = scores.double().softmax(0)
        upper = float(probability[: token + 1].sum())
        assert upper - float(probability[token]) - allowed <= philox_uniform(seed, offset, stream) <= upper + allowed
        if probability[token] == 0:  # only what top-p removed by that little may still be drawn
            kept_by_top_k = filter_scores(row, temperature, top_k, 1.0).double()
            larger = kept_by_top_k.softmax(0)[kept_by_top_k > kept_by_top_k[token]].sum()
            assert kept_by_top_k[token] > NONE
            assert float(larger) - allowed < top_p


def test_filters_equal_the_published_sampler() -> None:
    arrays = load_file(GOLDEN / "sampler.safetensors")
    inputs = {name[2:]: rows[0] for name, rows in arrays.items() if name.startswith("L.")}
    assert len(inputs) == 8
    for setting in json.loads((GOLDEN / "sampler.json").read_text())["settings"]:
        for name, logits in inputs.items():
            wanted = arrays[f"out.{setting['index']}.{name}"][0]
            top_p = 1.0 if setting["top_p"] is None else setting["top_p"]
            got = filter_scores(logits, setting["temperature"] or 1.0, setting["top_k"] or 0, top_p)
            if name == "ties40":  # which of equal entries its top-p keeps depends on an unstable sort
                got, wanted = got.sort().values, wanted.sort().values
            assert torch.equal(got == NONE, wanted == NONE)
            torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary", [1, 2, 15, 16, 17, 129, 1025])
def test_draws_equal_the_definition(backend, vocabulary, dtype) -> None:
    rows = 150 if backend.name == "cpu" else 40
    logits = (torch.randn(rows, vocabulary) * torch.rand(rows, 1) * 6).to(dtype)
    logits[torch.rand(rows, vocabulary) < 0.02] = NONE
    logits[:, vocabulary // 2] = 1.0
    logits, rest = logits.to(backend.device), random_settings(rows, vocabulary, backend.device)
    tokens = draw(backend.ops, logits, *rest, 3)
    assert tokens.dtype == torch.int64
    assert_draws(tokens, logits, rest, 3)
    assert (tokens.cpu() == reference.sample(logits.cpu(), *(t.cpu() for t in rest), 3)).float().mean() > 0.98


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_long_rows_equal_the_definition(backend, spread) -> None:
    vocabulary, rows = (151680, 5) if backend.name != "emulator" else (9000, 4)
    logits = torch.randn(rows, vocabulary).mul(spread).to(backend.device)
    rest = random_settings(rows, vocabulary, backend.device)
    rest[0][0], rest[1][0], rest[2][0] = 0.9, 0, 0.95
    rest[0][1], rest[1][1], rest[2][1] = 0.6, 50, 0.95
    rest[0][2], rest[1][2] = 1.3, vocabulary // 3
    for dtype in (torch.float32, torch.bfloat16):
        assert_draws(draw(backend.ops, logits.to(dtype), *rest), logits.to(dtype), rest)


def test_known_answers_of_philox(backend) -> None:
    """Published vectors for the definition; a draw from a flat row of 2^16 entries is its uniform's first 16 bits."""
    ones = 0xFFFFFFFF
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([ones] * 4, [ones] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    digits_of_pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert philox(digits_of_pi, [0xA4093822, 0x299F31D0]) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]

    size = 2**16
    places = [
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (-1, -1, 2**32 - 1),
        (2**63 - 1, -(2**63), 5),
        (7 << 32, 9, 2),
    ]
    for seed, offset, stream in places:
        rest = settings(1, seed=seed, offset=offset, device=backend.device)
        token = int(draw(backend.ops, torch.zeros(1, size, device=backend.device), *rest, stream))
        assert token == int(philox_uniform(seed, offset, stream) * size)
        assert (seed, offset, stream) != (0, 0, 0) or token == 0x6627


def chi_square(counts: Tensor, expected: Tensor) -> tuple[float, float]:
    """The statistic over the cells that may occur, and what a right sampler exceeds once in some million cases."""
    cells = expected > 0
    assert int(counts[~cells].sum()) == 0, "drawn although its probability is zero"
    freedom = int(cells.sum()) - 1
    statistic = float(((counts - expected)[cells].square() / expected[cells]).sum())
    return statistic, freedom + 5.5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.8, 9, 1.0), (1.5, 0, 0.9), (0.9, 12, 0.8)]
)
def test_frequencies_are_the_filtered_distribution(backend, temperature, top_k, top_p) -> None:
    draws = 1_000_000 if backend.name != "emulator" else 250
    row = torch.randn(20)
    row[4] = NONE
    logits = row.to(backend.device).expand(draws, -1)
    tokens = draw(backend.ops, logits, *settings(draws, temperature, top_k, top_p, seed=11, device=backend.device), 6)
    expected = filter_scores(row, temperature, top_k, top_p).double().softmax(0) * draws
    statistic, limit = chi_square(tokens.cpu().bincount(minlength=20).double(), expected)
    assert statistic < limit


@pytest.mark.parametrize("what", ["stream", "seed", "offset"])
def test_neighbouring_draws_are_independent(backend, what) -> None:
    """Pairs of draws that differ by one in one of the three numbers, in a table of both tokens."""
    draws, size = (500_000, 8) if backend.name != "emulator" else (500, 3)
    row = torch.randn(size)
    logits = row.to(backend.device).expand(draws, -1)
    temperature, top_k, top_p, seeds, offsets = settings(draws, seed=5, device=backend.device)
    first = draw(backend.ops, logits, temperature, top_k, top_p, seeds, offsets * 2, 1)
    step = {name: int(name == what) for name in ("stream", "seed", "offset")}
    changed = (seeds + step["seed"], offsets * 2 + step["offset"], 1 + step["stream"])
    second = draw(backend.ops, logits, temperature, top_k, top_p, *changed)
    counts = (first * size + second).cpu().bincount(minlength=size * size).double()
    probability = row.double().softmax(0)
    statistic, limit = chi_square(counts, (probability[:, None] * probability).flatten() * draws)
    assert statistic < limit


def test_a_draw_depends_on_its_row_alone(backend) -> None:
    for rows, vocabulary in ((40, 1025), (6, 8200)):
        logits = torch.randn(rows, vocabulary, device=backend.device) * 2
        rest = random_settings(rows, vocabulary, backend.device)
        together = draw(backend.ops, logits, *rest, 2)
        for part in (slice(1, 2), slice(3, 6), slice(rows - 1, rows)):
            assert torch.equal(draw(backend.ops, logits[part], *(t[part] for t in rest), 2), together[part])
        other_way = draw(backend.ops, logits.flip(0), *(t.flip(0) for t in rest), 2)
        assert torch.equal(other_way.flip(0), together)


def test_draws_do_not_depend_on_threads(by_threads) -> None:
    logits, rest = torch.randn(64, 5000), random_settings(64, 5000)
    first, *others = by_threads(lambda: mn.sample(logits, *rest))
    assert all(torch.equal(other, first) for other in others)


def test_greedy_takes_the_first_of_the_largest(backend) -> None:
    logits = torch.zeros(1, 300, device=backend.device)
    logits[0, [77, 78, 250]] = 2.0
    for top_k, top_p in ((0, 1.0), (1, 0.1)):
        assert draw(backend.ops, logits, *settings(1, 0.0, top_k, top_p, device=backend.device)).tolist() == [77]


@pytest.mark.parametrize("size", [40, 3000])
def test_both_zeros_are_equal(backend, size) -> None:
    """The first of the largest, the entries that tie at top-k, and the last of those at the edge of top-p."""
    logits = torch.full((60, size), -9.0, device=backend.device)
    logits[:, 3], logits[:, 5], logits[:, 8] = 0.0, -0.0, 0.0
    drawn = {
        (temperature, top_k, top_p): set(
            draw(backend.ops, logits, *settings(60, temperature, top_k, top_p, device=backend.device)).tolist()
        )
        for temperature, top_k, top_p in ((0.0, 0, 1.0), (1.0, 1, 1.0), (1.0, 3, 0.3))
    }
    assert drawn == {(0.0, 0, 1.0): {3}, (1.0, 1, 1.0): {3, 5, 8}, (1.0, 3, 0.3): {8}}
    logits[:, 3], logits[:, 5] = -0.0, 0.0
    assert draw(backend.ops, logits, *settings(60, 0.0, device=backend.device)).unique().tolist() == [3]


def test_ties(backend) -> None:
    """Entries equal to the k-th largest stay; of equal entries at the edge of top-p the last stay."""
    draws = 120
    logits = torch.zeros(draws, 14, device=backend.device)
    logits[:, 5], logits[:, 9] = 1.0, NONE

    def drawn(top_k: int, top_p: float) -> set[int]:
        rest = settings(draws, 0.1, top_k, top_p, device=backend.device)
        return set(draw(backend.ops, logits * 1e-3, *rest).tolist())

    everything = set(range(14)) - {9}
    assert drawn(1, 1.0) == {5}
    assert drawn(2, 1.0) == everything
    assert drawn(0, 0.25) == {5, 11, 12, 13}  # four entries of 13
    assert drawn(0, 1e-6) == {5}
    logits[:, 5] = 0.0
    assert drawn(0, 1e-6) == {13}


def test_extreme_scores(backend) -> None:
    huge = torch.tensor([[3e38, -3e38, 1e38, NONE], [1e-42, -1e-42, 0.0, NONE]], device=backend.device)
    rest = settings(2, 1.0, 0, 0.9, device=backend.device)
    assert_draws(draw(backend.ops, huge, *rest), huge, rest)
    rest = settings(2, 1.0, 2, 0.999, device=backend.device)
    assert_draws(draw(backend.ops, huge, *rest), huge, rest)
    lowest = torch.full((3, 40), -3.4e38, device=backend.device)
    rest = settings(3, 1.0, 0, 0.99, device=backend.device)
    assert_draws(draw(backend.ops, lowest, *rest), lowest, rest)
    steep = torch.linspace(-2000, 2000, 500, device=backend.device).repeat(4, 1)
    rest = settings(4, 30.0, 0, 0.9999999, device=backend.device)
    assert_draws(draw(backend.ops, steep, *rest), steep, rest)


def test_strides_and_empty_batches(backend) -> None:
    wide = torch.randn(60, 2 * 33, device=backend.device)
    rest = random_settings(60, 33, backend.device)
    wanted = draw(backend.ops, wide[:, ::2].contiguous(), *rest)
    assert torch.equal(draw(backend.ops, wide[:, ::2], *rest), wanted)
    spaced = [torch.stack([t, t], 1)[:, 0] for t in rest]
    assert torch.equal(draw(backend.ops, wide[:, ::2].T.contiguous().T, *spaced), wanted)
    empty = draw(backend.ops, wide[:0], *(t[:0] for t in rest))
    assert empty.shape == (0,)
    assert empty.dtype == torch.int64


def test_opcheck() -> None:
    torch.library.opcheck(torch.ops.mimo.sample.default, (torch.randn(5, 30), *random_settings(5, 30), 2))


def test_compiles_into_one_graph() -> None:
    logits, rest = torch.randn(5, 30), random_settings(5, 30)

    def step(logits: Tensor, *rest: Tensor) -> Tensor:
        return mn.sample(logits * 2, *rest, stream=4) + 1

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits, *rest), step(logits, *rest))


@pytest.mark.parametrize("row", [[1.0, math.nan], [NONE, NONE], [1.0, math.inf]], ids=["nan", "removed", "inf"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_rows_that_cannot_be_sampled(backend, row, temperature, top_p) -> None:
    """The CPU op raises; a CUDA kernel gives token 0 to the row, the right ones to the others, and reports it."""
    logits = torch.zeros(4, 2, device=backend.device)
    logits[:, 1] = 9
    wanted = draw(backend.ops, logits, *settings(4, temperature, 0, top_p, device=backend.device))
    logits[2] = torch.tensor(row)
    tokens = []
    rest = settings(4, temperature, 0, top_p, device=backend.device)
    backend.assert_raises(
        "^sample: the logits of row 2 cannot be sampled", lambda: tokens.append(draw(backend.ops, logits, *rest))
    )
    for got in tokens:
        wanted[2] = 0
        assert torch.equal(got, wanted)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (0, -0.5, r"^sample: temperature\[1\] must be 0 \(the largest logit\) or positive and finite"),
        (0, math.nan, r"^sample: temperature\[1\] must be"),
        (0, math.inf, r"^sample: temperature\[1\] must be"),
        (2, math.nan, r"^sample: top_p\[1\] must be a number"),
    ],
)
def test_settings_that_are_none(backend, setting, value, message) -> None:
    rest = settings(3, device=backend.device)
    rest[setting][1] = value
    backend.assert_raises(message, lambda: draw(backend.ops, torch.randn(3, 40, device=backend.device), *rest))


LOGITS = torch.zeros(2, 5)
GOOD = dict(zip(("temperature", "top_k", "top_p", "seeds", "offsets"), settings(2), strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": LOGITS[0]}, r"logits must be 2-D \[B, V\], got float32 \[5\]"),
        ({"logits": LOGITS.double()}, "logits must be float32 or bfloat16 or float16, got float64"),
        (
            {"logits": LOGITS[:, :0]},
            r"logits must have at most 2147483647 rows and 1 to 16777216 columns, got float32 \[2, 0\]",
        ),
        ({"temperature": GOOD["temperature"].double()}, "temperature must be float32, got float64"),
        ({"temperature": GOOD["temperature"][:1]}, r"temperature must have an entry per row of logits \(2\), got"),
        ({"temperature": torch.tensor([1.0, -0.5])}, r"temperature\[1\] must be 0 .* or positive and finite, got -0.5"),
        ({"temperature": torch.tensor([math.nan, 1.0])}, r"temperature\[0\] must be 0 .*, got nan"),
        ({"temperature": torch.tensor([1.0, math.inf])}, r"temperature\[1\] must be 0 .*, got inf"),
        ({"top_k": GOOD["top_k"].long()}, "top_k must be int32, got int64"),
        ({"top_k": GOOD["top_k"][None]}, r"top_k must be 1-D \[B\], got int32 \[1, 2\]"),
        ({"top_p": GOOD["top_p"].half()}, "top_p must be float32, got float16"),
        ({"top_p": torch.tensor([1.0, math.nan])}, r"top_p\[1\] must be a number, got nan"),
        ({"seeds": GOOD["seeds"].int()}, "seeds must be int64, got int32"),
        (
            {"offsets": GOOD["offsets"].repeat(2)},
            r"offsets must have an entry per row of logits \(2\), got int64 \[4\]",
        ),
        ({"stream": -1}, "stream must be in 0 .. 4294967295, got -1"),
        ({"stream": 2**32}, "stream must be in 0 .. 4294967295, got 4294967296"),
        ({"top_p": GOOD["top_p"].to("meta")}, "top_p must be on the device of logits"),
    ],
)
def test_names_what_is_wrong(changes, message) -> None:
    arguments = {"logits": LOGITS} | GOOD | {"stream": 0} | changes
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mimo.sample(*arguments.values())
