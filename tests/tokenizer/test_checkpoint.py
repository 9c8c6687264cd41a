"""Loading and saving the released layout: exact round trips, and one error that lists everything wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimo_audio.errors import ModelError
from mimo_audio.files.output import OutputError
from mimo_audio.released import checkpoint
from mimo_audio.tokenizer import AudioTokenizer, model
from mimo_audio.tokenizer.config import TokenizerConfig


@pytest.fixture
def saved(make_tokenizer, tmp_path):
    folder = tmp_path / "model"
    make_tokenizer().save_pretrained(folder)
    return folder


def rewrite(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_released_tensors_are_written_back_unchanged(golden, tmp_path):
    golden.tokenizer.save_pretrained(tmp_path / "copy")
    released, copy = (load_file(folder / "model.safetensors") for folder in (golden.folder, tmp_path / "copy"))
    assert released.keys() == copy.keys()
    assert all(torch.equal(released[name], copy[name]) for name in released)
    assert TokenizerConfig.load(tmp_path / "copy" / "config.json") == golden.tokenizer.config


def test_a_saved_model_computes_the_same(make_tokenizer, tmp_path):
    tokenizer = make_tokenizer(ln_type="RMSNorm", vocoder_phase_advance=True)
    tokenizer.save_pretrained(tmp_path)
    loaded = AudioTokenizer.from_pretrained(str(tmp_path))
    assert loaded.config == tokenizer.config
    assert not loaded.training
    wave = torch.randn(5000)
    codes = tokenizer.encode(wave)
    assert torch.equal(loaded.encode(wave), codes)
    assert torch.equal(loaded.decode(codes), tokenizer.decode(codes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_loaded_model_can_be_trained_and_saved_over_its_own_files(saved):
    loaded = AudioTokenizer.from_pretrained(saved)
    with torch.no_grad():
        loaded.encoder.conv1.weight.add_(1)
    loaded.save_pretrained(saved)
    again = AudioTokenizer.from_pretrained(saved)
    assert torch.equal(again.encoder.conv1.weight, loaded.encoder.conv1.weight)
    loaded.encoder(torch.randn(8, 20), [8]).sum().backward()
    assert loaded.encoder.conv1.weight.grad is not None


def test_nano_is_the_model_in_the_package(make_tokenizer, tmp_path, monkeypatch):
    make_tokenizer(d_model=24).save_pretrained(tmp_path / "assets" / "nano")
    monkeypatch.setattr(model, "files", {"mimo_audio": tmp_path}.get)
    assert AudioTokenizer.from_pretrained("nano").config.d_model == 24


def test_bfloat16_files_and_models(saved):
    exact = AudioTokenizer.from_pretrained(saved)
    rewrite(saved, lambda tensors: tensors.update({name: t.bfloat16() for name, t in tensors.items()}))
    rounded = AudioTokenizer.from_pretrained(saved)
    assert rounded.encoder.conv1.weight.dtype == rounded.quantizer.embeddings()[0].dtype == torch.float32
    assert torch.equal(rounded.encoder.conv1.weight, exact.encoder.conv1.weight.bfloat16().float())
    half = AudioTokenizer.from_pretrained(saved, dtype=torch.bfloat16)
    assert half.encoder.conv1.weight.dtype == torch.bfloat16


def test_every_wrong_tensor_is_listed_in_one_line(saved):
    def change(tensors):
        del tensors["decoder.dconv1.conv.bias"], tensors["encoder.quantizer.vq.layers.2._codebook.embed"]
        tensors["encoder.conv3.weight"] = torch.zeros(1)
        tensors["encoder.conv1.weight"] = torch.zeros(16, 20, 5)

    rewrite(saved, change)
    with pytest.raises(ModelError) as error:
        AudioTokenizer.from_pretrained(saved)
    message = str(error.value)
    assert "missing: decoder.dconv1.conv.bias, encoder.quantizer.vq.layers.2._codebook.embed;" in message
    assert "unexpected: encoder.conv3.weight;" in message
    assert "wrong shape: encoder.conv1.weight (expected [16, 20, 3], got [16, 20, 5])" in message
    assert "\n" not in message


def test_folders_without_a_model(tmp_path, saved):
    with pytest.raises(ModelError, match=r"no tokenizer at .*nowhere: missing config\.json"):
        AudioTokenizer.from_pretrained(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"missing model\.safetensors"):
        AudioTokenizer.from_pretrained(saved)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\xff" * 100])
def test_files_that_are_no_checkpoints(saved, content):
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot read .*model\.safetensors"):
        AudioTokenizer.from_pretrained(saved)


def test_truncated_checkpoint(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"cannot read .*model\.safetensors"):
        AudioTokenizer.from_pretrained(saved)


def test_unusable_device(saved):
    with pytest.raises(ModelError, match="device: cannot use nonsense"):
        AudioTokenizer.from_pretrained(saved, device="nonsense")


def test_unwritable_place(make_tokenizer, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        make_tokenizer().save_pretrained(tmp_path / "file")


def test_a_tokenizer_in_shards_is_read(saved):
    whole = AudioTokenizer.from_pretrained(saved)
    checkpoint.save_folder(whole, saved, shard_bytes=20_000)
    assert len(list(saved.glob("model-*.safetensors"))) > 1
    wave = torch.randn(5000)
    assert torch.equal(AudioTokenizer.from_pretrained(saved).encode(wave), whole.encode(wave))


def test_of_two_tensors_of_a_name_the_one_counts_that_the_index_names(saved):
    whole = AudioTokenizer.from_pretrained(saved)
    checkpoint.save_folder(whole, saved, shard_bytes=20_000)
    places = json.loads((saved / "model.safetensors.index.json").read_text())["weight_map"]
    name, own = next((name, file) for name, file in places.items() if file != max(places.values()))
    last = saved / max(places.values())
    tensors = load_file(last)
    save_file(tensors | {name: torch.zeros_like(load_file(saved / own)[name])}, last)
    loaded = AudioTokenizer.from_pretrained(saved).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in whole.state_dict().items())
