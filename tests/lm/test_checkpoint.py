"""Folders in the released layout: one file or shards, exact round trips, low memory, one error that names the cause."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimo_audio.errors import ModelError
from mimo_audio.files.output import OutputError
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def same(a: AudioLanguageModel, b: AudioLanguageModel) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def folder(make_model, tmp_path) -> Path:
    """A saved model, with the golden text tokenizer."""
    golden = Path(__file__).parents[1] / "golden" / "ckpt" / "A_lm_s0"
    model = make_model(vocab_size=651)
    model.text_folder = golden
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sharded(folder) -> Path:
    """The same in shards."""
    AudioLanguageModel.from_pretrained(folder).save_pretrained(folder, shard_bytes=20_000)
    return folder


def rewrite(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_released_tensors_are_written_back_unchanged(golden, tmp_path):
    golden.model.save_pretrained(tmp_path)
    released, copy = (load_file(folder / SINGLE) for folder in (golden.folder, tmp_path))
    assert released.keys() == copy.keys()
    assert all(torch.equal(released[name], copy[name]) for name in released)
    assert LanguageModelConfig.load(tmp_path / "config.json") == golden.model.config
    assert names(tmp_path) == names(golden.folder)
    for name in ("tokenizer.json", "merges.txt", "generation_config.json"):
        assert (tmp_path / name).read_bytes() == (golden.folder / name).read_bytes()


def test_shards_hold_what_one_file_holds(golden, tmp_path):
    golden.model.save_pretrained(tmp_path, shard_bytes=500_000)
    index = json.loads((tmp_path / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert shards == [f"model-{i:05}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    assert SINGLE not in names(tmp_path)
    for shard in shards:
        tensors = load_file(tmp_path / shard)
        assert {name for name, file in index["weight_map"].items() if file == shard} == set(tensors)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 500_000
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in golden.model.state_dict().values())
    assert same(AudioLanguageModel.from_pretrained(tmp_path), golden.model)


def test_saving_again_leaves_nothing_of_the_model_before(folder):
    model = AudioLanguageModel.from_pretrained(folder)
    others = names(folder) - {SINGLE}
    for shard_bytes in (20_000, 50_000, 10**9):
        with torch.no_grad():
            model.lm_head.weight.add_(1)
        model.save_pretrained(folder, shard_bytes)
        again = AudioLanguageModel.from_pretrained(folder)
        assert same(again, model)
        files = set(json.loads((folder / INDEX).read_text())["weight_map"].values()) if shard_bytes < 10**9 else set()
        assert names(folder) == others | files | {INDEX if files else SINGLE}


def test_a_loaded_model_owns_its_memory_and_can_be_trained(folder):
    model = AudioLanguageModel.from_pretrained(folder)
    before = model.lm_head.weight.clone()
    rewrite(folder / SINGLE, lambda tensors: tensors["lm_head.weight"].zero_())
    assert torch.equal(model.lm_head.weight, before)
    assert not model.training
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


@pytest.mark.parametrize("kept", [["model.embed_tokens.weight"], ["lm_head.weight"], ["both"]])
def test_tied_embeddings_stay_one_tensor(make_model, folder, kept):
    model = make_model(vocab_size=651, tie_word_embeddings=True)
    model.save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / SINGLE)

    def change(tensors):
        tied = tensors.pop("model.embed_tokens.weight")
        both = ["model.embed_tokens.weight", "lm_head.weight"]
        tensors.update({name: tied.clone() for name in (both if kept == ["both"] else kept)})

    rewrite(folder / SINGLE, change)
    loaded = AudioLanguageModel.from_pretrained(folder)
    assert loaded.lm_head.weight is loaded.backbone.embed_tokens.weight
    assert same(loaded, model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_precision_of_file_and_model(sharded, stored, dtype):
    exact = AudioLanguageModel.from_pretrained(sharded)
    for path in sharded.glob("model-*"):
        rewrite(path, lambda tensors: tensors.update({name: t.to(stored) for name, t in tensors.items()}))
    model = AudioLanguageModel.from_pretrained(sharded, dtype=dtype)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, exact.state_dict()[name].to(stored).to(dtype))


MEMORY = """
import sys, torch
from mimo_audio.lm import AudioLanguageModel

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

models = [AudioLanguageModel.from_pretrained(sys.argv[1])]  # a small one: what loading needs once is there then
for dtype in (torch.float32, torch.bfloat16):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
    models.append(AudioLanguageModel.from_pretrained(sys.argv[2], dtype=dtype))
    print(status("VmHWM") - before, sum(tensor.nbytes for tensor in models[-1].parameters()))
"""


def test_peak_memory_is_the_model_and_one_tensor(make_model, folder, tmp_path):
    large = make_model(vocab_size=20_000, hidden_size=512, intermediate_size=2048, num_hidden_layers=8, head_dim=64)
    large.text_folder = folder
    large.save_pretrained(tmp_path / "large", shard_bytes=60_000_000)
    assert len(list((tmp_path / "large").glob("model-*"))) == 4
    command = [sys.executable, "-c", MEMORY, folder, tmp_path / "large"]
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    for line, size in zip(result.stdout.splitlines(), (195e6, 98e6), strict=True):
        peak, model = map(int, line.split())
        assert model == pytest.approx(size, rel=0.01)
        assert peak < model + 45e6  # the largest tensor has 41 MB, less than a shard


def test_every_wrong_tensor_is_listed_in_one_line(sharded):
    def change(tensors):
        tensors.pop("model.norm.weight", None)
        tensors.pop("local_transformer_lm_heads.1.weight", None)
        if "lm_head.weight" in tensors:
            tensors["lm_head.weight"] = torch.zeros(3)
            tensors["lm_head.bias"] = torch.zeros(3)

    for path in sharded.glob("model-*"):
        rewrite(path, change)
    with pytest.raises(ModelError) as error:
        AudioLanguageModel.from_pretrained(sharded)
    message = str(error.value)
    assert "missing: local_transformer_lm_heads.1.weight, model.norm.weight;" in message
    assert "unexpected: lm_head.bias;" in message
    assert "wrong shape: lm_head.weight (expected [651, 24], got [3])" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read"),
        (b"not a shard", "cannot read"),
        (b"\xff" * 100, "cannot read"),
        (None, r"index\.json: missing model-00002-of-"),
    ],
)
def test_damaged_and_missing_shards(sharded, content, message):
    path = next(sharded.glob("model-00002-*"))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as error:
        AudioLanguageModel.from_pretrained(sharded)
    assert path.name in str(error.value)


def test_truncated_shard(sharded):
    path = next(sharded.glob("model-00003-*"))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match=f"cannot read .*{path.name}"):
        AudioLanguageModel.from_pretrained(sharded)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": {}}}',
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": "shard.bin"}}',
    ],
)
def test_indices_that_are_none(sharded, content):
    (sharded / INDEX).write_text(content)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json") as error:
        AudioLanguageModel.from_pretrained(sharded)
    assert "\n" not in str(error.value)


def test_folders_without_a_model(folder, tmp_path):
    with pytest.raises(ModelError, match=r"no language model at .*nowhere: missing config\.json"):
        AudioLanguageModel.from_pretrained(tmp_path / "nowhere")
    (folder / SINGLE).rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"missing model\.safetensors or .*; pytorch_model\.bin cannot be used, as"):
        AudioLanguageModel.from_pretrained(folder)


def test_the_folder_of_a_tokenizer():
    tokenizer = Path(__file__).parents[1] / "golden" / "ckpt" / "A_tok_s0"
    with pytest.raises(ModelError, match="expected the config of a language model, got that of an audio tokenizer"):
        AudioLanguageModel.from_pretrained(tokenizer)


def test_a_text_tokenizer_of_another_model(make_model, folder):
    make_model(vocab_size=650).save_pretrained(folder)
    with pytest.raises(ModelError, match="650"):
        AudioLanguageModel.from_pretrained(folder)
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="text tokenizer"):
        AudioLanguageModel.from_pretrained(folder)


def test_unusable_devices_and_types(folder):
    with pytest.raises(ModelError, match="device: cannot use nonsense"):
        AudioLanguageModel.from_pretrained(folder, device="nonsense")
    with pytest.raises(ModelError, match=r"dtype: expected torch\.float32, .*, got torch\.int8"):
        AudioLanguageModel.from_pretrained(folder, dtype=torch.int8)


def test_a_config_of_another_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(ModelError, match=r"tensors missing: model\.layers\.2\.input_layernorm\.weight"):
        AudioLanguageModel.from_pretrained(folder)


@pytest.mark.parametrize("shard_bytes", [10_000, 10**9])
def test_unwritable_place(make_model, tmp_path, shard_bytes):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        make_model().save_pretrained(tmp_path / "file", shard_bytes)
