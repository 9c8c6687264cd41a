"""patch_decode against its definition, on every backend: shapes, dtypes, batches, samplers, golden data, bad input."""

import importlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mimo_audio_native as mn
from mimo_audio_native import reference

GOLDEN = Path(os.environ.get("MIMO_GOLDEN", Path(__file__).parents[1] / "golden"))


class Shape(NamedTuple):
    """Sizes of a random patch decoder: widths D, E, F; heads, key-value heads and their width."""

    dim: int = 16
    embed_dim: int = 16
    ffn: int = 24
    heads: int = 2
    kv_heads: int = 2
    width: int = 8
    layers: int = 2
    delays: tuple[int, ...] = (0, 1, 2)
    group_size: int = 2


SHAPES = {
    "plain": Shape(),
    "odd_sizes": Shape(dim=21, embed_dim=21, ffn=13, heads=3, kv_heads=3, width=6, layers=1),
    "projection": Shape(dim=20, embed_dim=9, layers=1),
    "grouped_query": Shape(dim=24, embed_dim=24, ffn=40, heads=6, kv_heads=2, width=4),
    "wide_heads": Shape(dim=17, embed_dim=17, heads=2, kv_heads=1, width=70, layers=1),
    "long_delays": Shape(layers=1, delays=(33, 0), group_size=2),  # more than 32 positions
    "same_delays": Shape(layers=1, delays=(1, 1, 0, 1), group_size=1),
    "one_codebook": Shape(layers=1, delays=(0,), group_size=4),
}


def make(shape: Shape = SHAPES["plain"], batch: int = 3, dtype=torch.float32, device="cpu", **sampler: float) -> dict:
    """Arguments of patch_decode: random weights whose logits spread, one sampler for all rows."""

    def weight(*sizes: int) -> Tensor:
        return (torch.randn(sizes) * sizes[-1] ** -0.5).to(device, dtype)

    def gain() -> Tensor:
        return (1 + 0.3 * torch.randn(shape.dim)).to(device, dtype)

    q, k = shape.heads * shape.width, shape.kv_heads * shape.width
    layers = []
    for _ in range(shape.layers):
        projections = [t for rows in (q, k, k) for t in (weight(rows, shape.dim), weight(rows))]
        ffn = [weight(shape.ffn, shape.dim), weight(shape.ffn, shape.dim), weight(shape.dim, shape.ffn)]
        layers += [gain(), *projections, weight(shape.dim, q), gain(), *ffn]
    sizes = [7 + 4 * i for i in range(len(shape.delays))]
    steps = shape.group_size + max(shape.delays)
    angles = torch.arange(steps)[:, None] * torch.rand(shape.width // 2)
    return {
        "hidden": torch.randn(batch, shape.dim).to(device, dtype),
        "layers": layers,
        "norm": gain(),
        "heads": [3 * weight(size, shape.dim) for size in sizes],
        "embeddings": [torch.randn(size, shape.embed_dim).to(device, dtype) for size in sizes],
        "projection": None if shape.embed_dim == shape.dim else weight(shape.dim, shape.embed_dim),
        "cos": angles.cos().to(device),
        "sin": angles.sin().to(device),
        "attention_heads": shape.heads,
        "eps": 1e-6,
        "empty_ids": [size // 2 for size in sizes],
        "delays": list(shape.delays),
        "group_size": shape.group_size,
        "temperature": torch.full((batch,), sampler.get("temperature", 0.0), device=device),
        "top_k": torch.full((batch,), int(sampler.get("top_k", 0)), dtype=torch.int32, device=device),
        "top_p": torch.full((batch,), sampler.get("top_p", 1.0), device=device),
        "seeds": torch.arange(batch, device=device) * 1000,
        "offsets": torch.arange(batch, device=device) + 3,
    }


PER_ROW = ("hidden", "temperature", "top_k", "top_p", "seeds", "offsets")


def rows(arguments: dict, pick: slice) -> dict:
    return arguments | {name: arguments[name][pick] for name in PER_ROW}


def decode(backend, arguments: dict) -> Tensor:
    return backend.ops.patch_decode(*arguments.values())


def regret(monkeypatch: pytest.MonkeyPatch, arguments: dict, tokens: Tensor) -> float:
    """How far below the largest logit of the definition, fed with these very tokens, a token lies at worst."""
    worst, channels = [], tokens.shape[2]

    def follow(logits: Tensor, temperature, top_k, top_p, seeds, offsets, stream: int) -> Tensor:
        frame, channel = divmod(stream - 1, channels)
        chosen = tokens[:, frame, channel]
        worst.append((logits.amax(1) - logits.gather(1, chosen[:, None])[:, 0]).amax())
        return chosen

    module = importlib.import_module("mimo_audio_native.reference.delayed_sampling")
    with monkeypatch.context() as patch:
        patch.setattr(module, "sample", follow)
        reference.patch_decode(**arguments)
    return float(torch.stack(worst).max())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_greedy_tokens_are_those_of_the_definition(backend, monkeypatch, shape) -> None:
    arguments = make(shape, device=backend.device)
    tokens = decode(backend, arguments)
    assert tokens.shape == (3, shape.group_size, len(shape.delays))
    assert tokens.dtype == torch.int64
    assert regret(monkeypatch, arguments, tokens) < 1e-4
    assert torch.equal(tokens, reference.patch_decode(**arguments))


@pytest.mark.parametrize("sampler", [{"temperature": 0.9, "top_p": 0.95}, {"temperature": 1.5, "top_k": 4}])
def test_sampled_tokens_are_those_of_the_definition(backend, sampler) -> None:
    arguments = make(batch=5, device=backend.device, **sampler)
    tokens = decode(backend, arguments)
    assert torch.equal(tokens, reference.patch_decode(**arguments))
    assert not torch.equal(tokens, decode(backend, arguments | {"seeds": arguments["seeds"] + 1}))
    assert not torch.equal(tokens, decode(backend, arguments | {"offsets": arguments["offsets"] + 1}))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.0125)])
@pytest.mark.parametrize("name", ["plain", "odd_sizes", "projection"])
def test_half_precision_weights(backend, monkeypatch, dtype, tolerance, name) -> None:
    """Tokens are arg-maxima of the float32 definition over the same weights, up to the rounding of hidden states.

    Logits have a standard deviation of 3: sums of D products of a rounded hidden state and a weight. 2^-9 of 3 times a
    few standard deviations for bfloat16 (2^-12 for float16), twice for the two roundings of a step.
    """
    arguments = make(SHAPES[name], batch=4, dtype=dtype, device=backend.device)
    tokens = decode(backend, arguments)
    wide = {
        key: [t.float() for t in value]
        if key in ("layers", "heads", "embeddings")
        else value.float()
        if isinstance(value, Tensor) and value.dtype == dtype
        else value
        for key, value in arguments.items()
    }
    assert regret(monkeypatch, wide, tokens) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sampler", [{}, {"temperature": 1.0, "top_p": 0.9}], ids=["greedy", "sampled"])
def test_rows_do_not_depend_on_their_batch(backend, dtype, sampler) -> None:
    arguments = make(batch=7, dtype=dtype, device=backend.device, **sampler)
    together = decode(backend, arguments)
    for b in range(7):
        assert torch.equal(decode(backend, rows(arguments, slice(b, b + 1)))[0], together[b])
    assert torch.equal(decode(backend, rows(arguments, slice(2, 7))), together[2:])


def test_hidden_states_do_not_depend_on_the_batch_bit_for_bit(backend) -> None:
    """With heads that read single bits of rounding: row 1 of the first head is row 0 but for the last places."""
    arguments = make(Shape(dim=48, embed_dim=48, ffn=96, delays=(0, 1), group_size=8), batch=6, device=backend.device)
    first = arguments["heads"][0]
    for i in range(1, len(first)):
        first[i] = first[0] * (1 + torch.randn(48, device=backend.device) * 1e-7)
    together = decode(backend, arguments)
    assert len(together[:, :, 0].unique()) > 2
    for b in range(6):
        assert torch.equal(decode(backend, rows(arguments, slice(b, b + 1)))[0], together[b])


LARGE_ENOUGH_FOR_THREADS = Shape(64, 64, 256, 4, 4, 16, 2)


def test_tokens_do_not_depend_on_threads(by_threads) -> None:
    arguments = make(LARGE_ENOUGH_FOR_THREADS, batch=9, temperature=1.0)
    first, *others = by_threads(lambda: torch.stack([mn.patch_decode(**arguments) for _ in range(3)]))
    assert all(torch.equal(other, first[:1].expand_as(other)) for other in (first, *others))


def test_calls_at_the_same_time(by_threads) -> None:
    """From several Python threads, each with kernel threads of its own."""
    arguments = make(LARGE_ENOUGH_FOR_THREADS, batch=9, temperature=1.0)
    wanted = mn.patch_decode(**arguments)

    def call(_: int) -> bool:
        return torch.equal(mn.patch_decode(**arguments), wanted)

    with ThreadPoolExecutor(4) as pool:
        assert all(all(found) for found in by_threads(lambda: list(pool.map(call, range(12)))))


def test_strides_and_offsets_of_weights_do_not_matter(backend) -> None:
    arguments = make(SHAPES["plain"], device=backend.device)
    wanted = decode(backend, arguments)

    def strided(t: Tensor) -> Tensor:
        return torch.stack([t, t], -1).flatten(-2)[..., ::2]

    def shifted(t: Tensor) -> Tensor:  # dense, but not on a 16-byte boundary
        return torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape)

    for change in (strided, shifted):
        changed = {
            name: [change(t) for t in value]
            if name in ("layers", "heads", "embeddings")
            else change(value)
            if isinstance(value, Tensor)
            else value
            for name, value in arguments.items()
        }
        assert torch.equal(decode(backend, changed), wanted)


def test_empty_batch(backend) -> None:
    assert decode(backend, make(batch=0, device=backend.device)).shape == (0, 2, 3)


@pytest.mark.parametrize("checkpoint", sorted(path.name for path in (GOLDEN / "ckpt").glob("*_lm_*")))
def test_golden_tokens(backend, checkpoint) -> None:
    """The published code's greedy tokens of three positions; the smallest gap between its logits is 2e-3."""
    config = json.loads((GOLDEN / "ckpt" / checkpoint / "config.json").read_text())
    info = json.loads((GOLDEN / f"{checkpoint}.lm.json").read_text())
    weights: dict[str, Tensor] = {}
    for path in (GOLDEN / "ckpt" / checkpoint).glob("*.safetensors"):
        weights |= load_file(path, device=backend.device)
    arrays = load_file(GOLDEN / f"{checkpoint}.lm.safetensors", device=backend.device)
    attention = [f"self_attn.{c}_proj.{kind}" for c in "qkv" for kind in ("weight", "bias")]
    ffn = [f"mlp.{c}_proj.weight" for c in ("gate", "up", "down")]
    names = ["input_layernorm.weight", *attention, "self_attn.o_proj.weight", "post_attention_layernorm.weight", *ffn]
    width, steps = info["local_head_dim"], info["group_size"] + max(info["delay_pattern"])
    angles = torch.outer(torch.arange(steps), config["rope_theta"] ** (-torch.arange(0, width, 2) / width))
    channels = range(info["audio_channels"])
    arguments = make(batch=3, device=backend.device) | {
        "hidden": arrays["local_hidden_all"][0, info["local_positions"]],
        "layers": [weights[f"local_transformer.layers.{i}.{n}"] for i in range(config["local_layers"]) for n in names],
        "norm": weights["local_transformer.norm.weight"],
        "heads": [weights[f"local_transformer_lm_heads.{r}.weight"] for r in channels],
        "embeddings": [weights[f"speech_embeddings.{r}.weight"] for r in channels],
        "projection": weights.get("speech_embeddings_to_local.weight"),
        "cos": angles.cos().to(backend.device),
        "sin": angles.sin().to(backend.device),
        "attention_heads": config["local_attn_heads"],
        "eps": config["rms_norm_eps"],
        "empty_ids": info["speech_empty_ids"],
        "delays": info["delay_pattern"],
        "group_size": info["group_size"],
    }
    assert torch.equal(decode(backend, arguments), arrays["local.tokens"].long())


def test_opcheck() -> None:
    arguments = make(SHAPES["projection"], temperature=1.0)
    torch.library.opcheck(torch.ops.mimo.patch_decode.default, tuple(arguments.values()))


def test_compiles_into_one_graph() -> None:
    arguments = make()
    compiled = torch.compile(lambda **a: mn.patch_decode(**a) + 1, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(**arguments), mn.patch_decode(**arguments) + 1)


def test_a_meta_tensor_among_others_is_an_error() -> None:
    arguments = make()
    arguments["layers"][13] = arguments["layers"][13].to("meta")
    with pytest.raises(
        RuntimeError, match=r"patch_decode: layers\[13\] must be on the device of hidden \(cpu\), got meta"
    ):
        mn.patch_decode(**arguments)


def with_layer(index: int, tensor: Tensor) -> dict:
    layers = list(make()["layers"])
    layers[index] = tensor
    return {"layers": layers}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": torch.zeros(16)}, r"hidden must be 2-D \[B, D\], got float32 \[16\]"),
        ({"hidden": torch.zeros(3, 16).double()}, "hidden must be float32 or bfloat16 or float16, got float64"),
        ({"hidden": torch.zeros(3, 0)}, "hidden must have at most 65535 rows and 1 to 1048576 columns, got"),
        ({"layers": []}, "layers must hold 12 tensors per layer, one layer at least, got 0"),
        ({"layers": [torch.zeros(16)] * 13}, "layers must hold 12 tensors per layer, one layer at least, got 13"),
        (with_layer(1, torch.zeros(16)), r"layers\[1\] \(layer 0, q\) must be 2-D \[Q, D\], got float32 \[16\]"),
        (
            with_layer(1, torch.zeros(18, 16)),
            r"layers\[1\] \(layer 0, q\) must have rows for 2 attention_heads of an even",
        ),
        (
            with_layer(3, torch.zeros(12, 16)),
            r"layers\[3\] \(layer 0, k\) must have the head width 8 times a divisor of",
        ),
        (
            with_layer(5, torch.zeros(8, 16)),
            r"layers\[5\] \(layer 0, v\) must be \[K, D\] = \[16, 16\], got float32 \[8, 16\]",
        ),
        (with_layer(9, torch.zeros(0, 16)), r"layers\[9\] \(layer 0, gate\) must have 1 to 1048576 rows, got"),
        (with_layer(12, torch.zeros(15)), r"layers\[12\] \(layer 1, norm\) must be \[D\] = \[16\], got float32 \[15\]"),
        (with_layer(23, torch.zeros(24, 16)), r"layers\[23\] \(layer 1, down\) must be \[D, F\] = \[16, 24\], got"),
        (with_layer(14, torch.zeros(16).half()), r"layers\[14\] \(layer 1, q bias\) must have the dtype of hidden"),
        ({"norm": torch.zeros(17)}, r"norm must be \[D\] = \[16\], got float32 \[17\]"),
        ({"heads": []}, "heads must hold 1 to 32 tensors"),
        ({"embeddings": [torch.zeros(7, 16)]}, r"embeddings must have an entry per head \(3\), got 1"),
        (
            {"embeddings": [torch.zeros(n, 9) for n in (7, 11, 15)]},
            r"projection must be given where embeddings are not",
        ),
        ({"projection": torch.zeros(16, 9)}, r"projection must be \[D, E\] = \[16, 16\], got float32 \[16, 9\]"),
        ({"cos": torch.zeros(4, 4).double()}, "cos must be float32, got float64"),
        ({"cos": torch.zeros(4, 3)}, r"cos must be \[positions, head width / 2 = 4\], got float32 \[4, 3\]"),
        ({"sin": torch.zeros(3, 4)}, "sin must have a row per step, at least 4"),
        ({"attention_heads": 0}, "attention_heads must be 1 to"),
        ({"attention_heads": 5}, r"layers\[1\] \(layer 0, q\) must have rows for 5 attention_heads"),
        ({"eps": -1.0}, "eps must be at least 0 and finite in float32, got -1"),
        ({"eps": 1e300}, r"eps must be at least 0 and finite in float32, got 1e\+300"),
        ({"sin": torch.zeros(6, 4)}, r"sin must have the shape of cos \[4, 4\], got float32 \[6, 4\]"),
        ({"empty_ids": [0, 1, 15]}, r"empty_ids\[2\] must be in 0 .. 14, got 15"),
        ({"delays": [0, -1, 2]}, r"delays\[1\] must be in 0 .. 1073741823, got -1"),
        ({"delays": [0, 1, 2000]}, "group_size \\+ the largest of delays must be at most 1024, got 2002"),
        ({"group_size": 0}, "group_size must be 1 to 1024, got 0"),
        ({"temperature": torch.zeros(2)}, r"temperature must have an entry per row of hidden \(3\), got float32 \[2\]"),
        ({"temperature": torch.tensor([0.0, -1.0, 0.0])}, r"temperature\[1\] must be 0 .* got -1"),
        ({"seeds": torch.zeros(3)}, "seeds must be int64, got float32"),
    ],
)
def test_names_what_is_wrong(changes, message) -> None:
    with pytest.raises(RuntimeError, match=f"patch_decode: {message}"):
        torch.ops.mimo.patch_decode(*(make() | changes).values())


def test_names_the_row_whose_logits_are_not_numbers(backend) -> None:
    arguments = make(device=backend.device)
    arguments["hidden"][1, 5] = float("nan")
    backend.assert_raises(
        "^patch_decode: the logits of row 1 cannot be sampled", lambda: backend.ops.patch_decode(*arguments.values())
    )


FORMATS = {"int8": (8, 32), "int4_32": (4, 32), "int4_128": (4, 128)}
QUANTIZED_SHAPE = Shape(dim=128, embed_dim=24, ffn=256, heads=16, kv_heads=16, width=8)


def quantized(arguments: dict, kind: str) -> dict:
    return arguments | {
        "layers": [mn.quantize_weight(t, *FORMATS[kind]) if t.dim() == 2 else t for t in arguments["layers"]]
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_tokens_of_quantised_weights(backend, monkeypatch, kind) -> None:
    """The definition's own choice, or one as good but for activations that were rounded to the other side."""
    dense = make(QUANTIZED_SHAPE, 9, device=backend.device)
    arguments = quantized(dense, kind)
    tokens = decode(backend, arguments)
    assert regret(monkeypatch, arguments, tokens) < 0.02
    assert (tokens == reference.patch_decode(**arguments)).float().mean() > 0.9
    for b in range(9):
        assert torch.equal(decode(backend, rows(arguments, slice(b, b + 1))), tokens[b : b + 1])


def test_quantised_weights_follow_the_weights() -> None:
    """int8 keeps the choices of the weights it stands for; other weights make others."""
    dense = make(QUANTIZED_SHAPE, 16)
    tokens = mn.patch_decode(**dense)
    near = [mn.patch_decode(**quantized(dense, kind)) for kind in ("int8", "int4_32")]
    agreement = [float((other == tokens).float().mean()) for other in near]
    assert agreement[0] > 0.9
    assert agreement[0] >= agreement[1]
