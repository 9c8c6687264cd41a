"""Language models with quantised weights: against their own dequantised weights, in folders, in memory."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mimo_audio_native as mn
from mimo_audio.errors import ModelError
from mimo_audio.lm import AudioLanguageModel
from mimo_audio.lm.quantized import Quantization, formats, quantize
from mimo_audio.lm.transformer import Linear

KINDS = {"int8": Quantization(8), "int4": Quantization(4)}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def quantised(golden, kind: str) -> AudioLanguageModel:
    return AudioLanguageModel.from_pretrained(golden.folder, quantize=kind)


def dequantised(golden, kind: str) -> AudioLanguageModel:
    """The same numbers as plain weights."""
    model, small = AudioLanguageModel.from_pretrained(golden.folder), quantised(golden, kind)
    for name in formats(model, KINDS[kind]):
        module, packed = model.get_submodule(name.removesuffix(".weight")), small.get_parameter(name)
        assert packed.dtype == torch.uint8
        module.weight = nn.Parameter(mn.dequantize_weight(packed, module.in_features))
    return model


def distance(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@torch.no_grad()
def test_which_weights_are_quantised(golden, kind) -> None:
    model = quantised(golden, kind)
    small = {name for name, p in model.named_parameters() if p.dtype == torch.uint8}
    linear = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, Linear)}
    assert small == linear - {n for n in linear if n.startswith("patch_decoder.heads.")}
    assert len(small) == 7 * (3 + 3 + 2) + 3
    assert model.lm_head.weight.shape == (704, 68)
    assert (
        model.get_parameter("backbone.transformer.layers.0.mlp.down_proj.weight").shape[1] == (132, 72)[kind == "int4"]
    )
    assert model.dtype == torch.float32
    assert not any(p.requires_grad for name, p in model.named_parameters() if name in small)


@torch.no_grad()
def test_outputs_are_those_of_the_weights_that_it_stands_for(golden, kind) -> None:
    """But for the activations' 8 bits."""
    small, plain = quantised(golden, kind)(golden["input_ids"]), dequantised(golden, kind)(golden["input_ids"])
    full = golden.model(golden["input_ids"])
    for name in ("hidden", "text_logits", "local_hidden"):
        got, wanted = getattr(small, name), getattr(plain, name)
        assert distance(got, wanted) < 0.035
        assert distance(got, getattr(full, name)) < {"int8": 0.05, "int4": 0.45}[kind]
    agreement = (small.text_logits.argmax(-1) == full.text_logits.argmax(-1)).float().mean()
    assert agreement > {"int8": 0.9, "int4": 0.4}[kind]


@torch.no_grad()
def test_decoding_step_by_step_is_one_pass(golden, kind) -> None:
    """backbone_step and a pass over all positions take the same quantised rows, but where rounding flips one."""
    model = quantised(golden, kind)
    embeds = model.embed(golden["input_ids"])[:1]
    whole = model.backbone(embeds)
    cache = model.new_cache()
    assert cache.dtype == torch.float32
    pieces = [model.backbone(embeds[:, :20], cache=cache)]
    pieces += [model.backbone(embeds[:, i : i + 1], cache=cache) for i in range(20, embeds.shape[1])]
    assert distance(torch.cat(pieces, 1), whole) < 5e-3


@torch.no_grad()
def test_patches_are_those_of_the_weights_that_it_stands_for(golden) -> None:
    model, plain = quantised(golden, "int8"), dequantised(golden, "int8")
    torch.manual_seed(0)
    hidden = torch.randn(12, 32)
    codes = model.patch_decode(hidden)
    wanted = plain.patch_decode(hidden)
    assert torch.equal(codes[:, 0, 0], wanted[:, 0, 0])
    assert (codes == wanted).float().mean() > 0.5, "one other token changes all that follow"
    for row in range(12):
        assert torch.equal(model.patch_decode(hidden[row : row + 1])[0], codes[row])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_folder_of_quantised_weights(golden, kind, dtype, tmp_path: Path) -> None:
    model = AudioLanguageModel.from_pretrained(golden.folder, dtype=dtype, quantize=kind)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "mimo-audio-native", "bits": KINDS[kind].bits, "group_size": 32
    }  # fmt: skip
    for wish in (None, kind):
        again = AudioLanguageModel.from_pretrained(tmp_path, dtype=dtype, quantize=wish)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        assert torch.equal(again(golden["input_ids"]).text_logits, model(golden["input_ids"]).text_logits)
    other = next(name for name in KINDS if name != kind)
    with pytest.raises(ModelError, match=f"quantize: expected .* unquantised or {KINDS[other]}, got {KINDS[kind]}"):
        AudioLanguageModel.from_pretrained(tmp_path, quantize=other)


def test_quantised_weights_lie_in_the_mapped_file(golden, tmp_path: Path) -> None:
    quantised(golden, "int4").save_pretrained(tmp_path)
    model = AudioLanguageModel.from_pretrained(tmp_path)
    place = model.get_parameter("backbone.transformer.layers.0.mlp.up_proj.weight").data_ptr()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    held = {entry[-1] for entry in maps if place in range(*(int(end, 16) for end in entry[0].split("-")))}
    assert held == {str(tmp_path / "model.safetensors")}


def test_quantising_a_model_in_memory(golden, kind) -> None:
    model = quantize(AudioLanguageModel.from_pretrained(golden.folder), KINDS[kind])
    loaded = quantised(golden, kind)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert model.config == loaded.config
    with pytest.raises(ModelError, match="expected weights that are not quantised"):
        quantize(model, KINDS[kind])


def test_tied_embeddings_stay_as_they_are(make_model) -> None:
    model = make_model(
        tie_word_embeddings=True, hidden_size=32, intermediate_size=64, local_dim=32, local_ffn_dim=32,
        input_local_dim=32, head_dim=16, num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    quantize(model, Quantization(4))
    assert model.lm_head.weight is model.backbone.embed_tokens.weight
    assert model.lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("gptq", "quantization_config: not one of this package"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "expected quant_method mimo-audio-native, got 'gptq'"),
        ({"quant_method": "mimo-audio-native", "bits": 3, "group_size": 32}, "bits: expected 4 or 8, got 3"),
        ({"quant_method": "mimo-audio-native", "bits": 4}, "not one of this package"),
        ({"quant_method": "mimo-audio-native", "bits": 4, "group_size": 32}, "of the wrong shape"),
    ],
)
def test_folders_that_say_something_else(golden, entry, message, tmp_path: Path) -> None:
    golden.model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"quantization_config": entry}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        AudioLanguageModel.from_pretrained(tmp_path)


def test_what_cannot_be_quantised(golden) -> None:
    with pytest.raises(ModelError, match="quantize: expected int8 or int4, got 'int3'"):
        AudioLanguageModel.from_pretrained(golden.folder, quantize="int3")
    with pytest.raises(ModelError, match=r"int4, group 128: .*: expected columns in a multiple of 128, got 64, and"):
        quantize(AudioLanguageModel.from_pretrained(golden.folder), Quantization(4, 128))
    model = AudioLanguageModel.from_pretrained(golden.folder)
    with torch.no_grad():
        model.lm_head.weight[3, 3] = torch.nan
    with pytest.raises(ModelError, match=r"lm_head\.weight: weight: expected finite numbers"):
        quantize(model, Quantization(4))


def test_linear_takes_both() -> None:
    layer = Linear(64, 48)
    x = torch.randn(2, 5, 64)
    wanted = F.linear(x, layer.weight, layer.bias)
    layer.weight = nn.Parameter(mn.quantize_weight(layer.weight, 8), requires_grad=False)
    with torch.no_grad():
        assert layer(x).shape == (2, 5, 48)
        assert distance(layer(x), wanted) < 0.02
