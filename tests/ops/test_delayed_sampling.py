"""delayed_sampling against its definition, on every backend: steps, dtypes, widths, batches, strides, bad input."""

import math

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

UNWRITTEN = -7


def make_step(batch, dim=64, embed_dim=24, sizes=(65, 33, 17), delays=None, dtype=torch.float32, device="cpu") -> dict:
    """Arguments of a step; the head row of each empty id is boosted, so that it would win if it were not removed."""
    heads = [torch.randn(size, dim) * 3 * dim**-0.5 for size in sizes]
    hidden = torch.randn(batch, dim)
    hidden[:, 0] = 1.0
    for head in heads:
        head[-1, 0] = 20.0
    rest = (
        torch.where(torch.rand(batch) < 0.2, 0.0, torch.rand(batch) + 0.3),
        torch.randint(-1, 30, (batch,)).int(),
        torch.rand(batch) * 0.5 + 0.6,
        *torch.randint(-(2**40), 2**40, (2, batch)),
    )
    names = ("temperature", "top_k", "top_p", "seeds", "offsets")
    return {
        "hidden": hidden.to(device, dtype),
        "heads": [head.to(device, dtype) for head in heads],
        "embeddings": [torch.randn(size, embed_dim).to(device, dtype) for size in sizes],
        "empty_ids": [size - 1 for size in sizes],
        "delays": list(range(len(sizes))) if delays is None else delays,
        "step": 2,
        "tokens": torch.full((batch, 4, len(sizes)), UNWRITTEN, device=device),
    } | {name: value.to(device) for name, value in zip(names, rest, strict=True)}


def run(op, arguments: dict, **changes) -> tuple[Tensor, Tensor]:
    """The summed embeddings and the tokens, which are written to a copy."""
    arguments = arguments | {"tokens": arguments["tokens"].clone()} | changes
    return op(*arguments.values()), arguments["tokens"]


def assert_same(got: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(got[1], wanted[1])
    assert got[0].dtype == wanted[0].dtype
    torch.testing.assert_close(got[0], wanted[0], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("dim", "embed_dim"), [(64, 24), (20, 13), (1, 1), (200, 40)])
def test_every_step_equals_the_definition(backend, dim, embed_dim, dtype) -> None:
    arguments = make_step(5, dim, embed_dim, dtype=dtype, device=backend.device)
    for step in range(8):
        got = run(backend.ops.delayed_sampling, arguments, step=step)
        assert_same(got, run(reference.delayed_sampling, arguments, step=step))
        for channel, delay in enumerate(arguments["delays"]):
            frames = torch.arange(4) == step - delay
            assert (got[1][:, frames, channel] >= 0).all()
            assert (got[1][:, frames, channel] < arguments["empty_ids"][channel]).all()
            assert (got[1][:, ~frames, channel] == UNWRITTEN).all()
        if step > 5:
            assert not got[0].any()


@pytest.mark.parametrize("delays", [[0, 0, 0], [3, 0, 5], [1, 1, 0]])
@pytest.mark.parametrize("batch", [1, 2, 3, 9])
def test_delay_patterns_and_batches(backend, batch, delays) -> None:
    arguments = make_step(batch, delays=delays, device=backend.device)
    for step in range(9):
        assert_same(
            run(backend.ops.delayed_sampling, arguments, step=step),
            run(reference.delayed_sampling, arguments, step=step),
        )


def test_released_codebooks(backend) -> None:
    """Width and codebooks of the released model, at the step where most are active."""
    sizes = (1025, 1025, *[129] * 6)
    arguments = make_step(2, 1024, 1024, sizes, dtype=torch.bfloat16, device=backend.device)
    got = run(backend.ops.delayed_sampling, arguments, step=3)
    assert_same(got, run(reference.delayed_sampling, arguments, step=3))


def test_codebooks_draw_with_streams_of_their_own(backend) -> None:
    """Equal heads, seeds and offsets: frame i of codebook r draws with stream 1 + i * C + r of `sample`."""
    arguments = make_step(6, sizes=(50, 50), delays=[0, 1], device=backend.device)
    arguments |= {"heads": arguments["heads"][:1] * 2, "temperature": torch.full((6,), 3.0, device=backend.device)}
    logits = arguments["hidden"] @ arguments["heads"][0].T
    logits[:, 49] = -math.inf
    rest = [arguments[name] for name in ("temperature", "top_k", "top_p", "seeds", "offsets")]
    _, tokens = run(backend.ops.delayed_sampling, arguments, step=2)
    assert torch.equal(tokens[:, 2, 0], backend.ops.sample(logits, *rest, 1 + 2 * 2))
    assert torch.equal(tokens[:, 1, 1], backend.ops.sample(logits, *rest, 1 + 1 * 2 + 1))


def test_a_row_depends_on_itself_alone(backend) -> None:
    arguments = make_step(11, 72, device=backend.device)
    together = run(backend.ops.delayed_sampling, arguments)
    per_row = ("hidden", "tokens", "temperature", "top_k", "top_p", "seeds", "offsets")
    for part in (slice(0, 1), slice(2, 4), slice(4, 11)):
        alone = run(backend.ops.delayed_sampling, {k: v[part] if k in per_row else v for k, v in arguments.items()})
        assert_same(alone, (together[0][part], together[1][part]))


def test_results_do_not_depend_on_threads(by_threads) -> None:
    arguments = make_step(7, 256, sizes=(1025, 129))
    first, *others = by_threads(lambda: run(torch.ops.mimo.delayed_sampling, arguments))
    for other in others:
        assert_same(other, first)


def test_strides(backend) -> None:
    arguments = make_step(4, device=backend.device)
    wanted = run(backend.ops.delayed_sampling, arguments)
    turned = {
        "hidden": arguments["hidden"].T.contiguous().T,
        "heads": [t.T.contiguous().T for t in arguments["heads"]],
        "embeddings": [torch.stack([t, t], 1)[:, 0] for t in arguments["embeddings"]],
        "offsets": torch.stack([arguments["offsets"]] * 2, 1)[:, 0],
    }
    assert_same(run(backend.ops.delayed_sampling, arguments, **turned), wanted)
    spaced = torch.full((4, 3, 4, 2), UNWRITTEN, device=backend.device)
    tokens = spaced[..., 1].transpose(1, 2)
    backend.ops.delayed_sampling(*(arguments | {"tokens": tokens}).values())
    assert torch.equal(tokens, wanted[1])
    assert (spaced[..., 0] == UNWRITTEN).all()


def test_heads_at_odd_addresses(backend) -> None:
    """Rows that begin off a 16-byte boundary, as slices of a memory-mapped file may."""
    arguments = make_step(3, 64, dtype=torch.bfloat16, device=backend.device)
    moved = []
    for head in arguments["heads"]:
        flat = torch.zeros(head.numel() + 1, dtype=head.dtype, device=head.device)
        flat[1:] = head.flatten()
        moved.append(flat[1:].view_as(head))
    assert_same(run(backend.ops.delayed_sampling, arguments, heads=moved), run(backend.ops.delayed_sampling, arguments))


def test_empty_sizes(backend) -> None:
    arguments = make_step(0, device=backend.device)
    next_input, tokens = run(backend.ops.delayed_sampling, arguments)
    assert next_input.shape == (0, 24)
    assert tokens.shape == (0, 4, 3)
    arguments = make_step(2, device=backend.device)
    next_input, _ = run(backend.ops.delayed_sampling, arguments, tokens=arguments["tokens"][:, :0])
    assert next_input.shape == (2, 24)
    assert not next_input.any()


def test_opcheck() -> None:
    torch.library.opcheck(torch.ops.mimo.delayed_sampling.default, tuple(make_step(3).values()))


def test_compiles_into_one_graph() -> None:
    arguments = make_step(3)

    def step(arguments: dict) -> tuple[Tensor, Tensor]:
        tokens = arguments["tokens"] + 0
        return mn.delayed_sampling(*(arguments | {"tokens": tokens}).values()) * 2, tokens

    assert_same(torch.compile(step, fullgraph=True, backend="aot_eager")(arguments), step(arguments))


def test_a_row_that_cannot_be_sampled(backend) -> None:
    """The CPU op writes no token; a CUDA kernel writes 0 to that row and the right ones to the others."""
    arguments = make_step(3, device=backend.device)
    wanted = run(backend.ops.delayed_sampling, arguments)[1]
    arguments["hidden"][1, 5] = math.nan
    tokens = arguments["tokens"]
    backend.assert_raises(
        "^delayed_sampling: the logits of row 1 cannot be sampled",
        lambda: backend.ops.delayed_sampling(*arguments.values()),
    )
    if backend.name == "cpu":
        assert (tokens == UNWRITTEN).all()
        return
    wanted[1] = torch.where(wanted[1] == UNWRITTEN, wanted[1], 0)
    assert torch.equal(tokens, wanted)


GOOD = make_step(2, 8, 6, (5, 4))
HEADS, EMBEDDINGS = GOOD["heads"], GOOD["embeddings"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": GOOD["hidden"][0]}, r"hidden must be 2-D \[B, D\], got float32 \[8\]"),
        ({"hidden": GOOD["hidden"].double()}, "hidden must be float32 or bfloat16 or float16, got float64"),
        ({"hidden": GOOD["hidden"][:, :0]}, "hidden must have at most 2147483647 rows and 1 to 1048576 columns, got"),
        ({"heads": []}, "heads must hold 1 to 32 tensors"),
        ({"heads": HEADS * 17}, r"heads must hold 1 to 32 tensors \[V, D\], got 34"),
        ({"heads": [HEADS[0], HEADS[1].half()]}, r"heads\[1\] must have the dtype of hidden \(float32\), got float16"),
        ({"heads": [HEADS[0], HEADS[1][:, :7]]}, r"heads\[1\] must be \[V, D\] = \[V, 8\], got float32 \[4, 7\]"),
        ({"heads": [HEADS[0][:1], HEADS[1]]}, r"heads\[0\] must have 2 to 16777216 rows, got float32 \[1, 8\]"),
        ({"embeddings": EMBEDDINGS[:1]}, r"embeddings must have an entry per head \(2\), got 1"),
        ({"embeddings": EMBEDDINGS[::-1]}, r"embeddings\[0\] must be \[V, E\] = \[5, 6\], got float32 \[4, 6\]"),
        ({"embeddings": [EMBEDDINGS[0], EMBEDDINGS[1][:, :5]]}, r"embeddings\[1\] must be \[V, E\] = \[4, 6\], got"),
        ({"embeddings": [t[:, :0] for t in EMBEDDINGS]}, r"embeddings\[0\] must have 1 to 1048576 columns, got"),
        ({"embeddings": [EMBEDDINGS[0][0], EMBEDDINGS[1]]}, r"embeddings\[0\] must be 2-D \[V, E\], got float32 \[6\]"),
        ({"empty_ids": [4]}, r"empty_ids must have an entry per head \(2\), got 1"),
        ({"empty_ids": [4, 4]}, r"empty_ids\[1\] must be in 0 .. 3, got 4"),
        ({"empty_ids": [-1, 3]}, r"empty_ids\[0\] must be in 0 .. 4, got -1"),
        ({"delays": [0, 1, 2]}, r"delays must have an entry per head \(2\), got 3"),
        ({"delays": [0, -1]}, r"delays\[1\] must be in 0 .. 1073741823, got -1"),
        ({"delays": [2**30, 0]}, r"delays\[0\] must be in 0 .. 1073741823, got 1073741824"),
        ({"step": -1}, "step must be in 0 .. 1073741823, got -1"),
        ({"tokens": GOOD["tokens"].int()}, "tokens must be int64, got int32"),
        ({"tokens": GOOD["tokens"][0]}, r"tokens must be 3-D \[B, G, C\], got int64 \[4, 2\]"),
        ({"tokens": GOOD["tokens"][:1]}, r"tokens must be \[B, G, C\] = \[2, G, 2\], got int64 \[1, 4, 2\]"),
        (
            {"tokens": GOOD["tokens"][:1].expand(2, 4, 2)},
            "tokens must have a place .* got one expanded along dimension 0",
        ),
        ({"temperature": GOOD["temperature"] - 9}, r"temperature\[0\] must be 0 .* or positive and finite, got -"),
        ({"top_p": GOOD["top_p"] * math.nan}, r"top_p\[0\] must be a number, got nan"),
        ({"seeds": GOOD["seeds"][:1]}, r"seeds must have an entry per row of hidden \(2\), got int64 \[1\]"),
        ({"tokens": GOOD["tokens"].to("meta")}, "tokens must be on the device of hidden"),
    ],
)
def test_names_what_is_wrong(changes, message) -> None:
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mimo.delayed_sampling(*(GOOD | changes).values())
