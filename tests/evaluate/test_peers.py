"""Peer codecs: tiny ones with random weights in the released layout against a direct call of transformers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mimo_audio.errors import MimoError
from mimo_audio.evaluate import peers
from mimo_audio.evaluate.peers import load_peer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model of every kind, with codebooks of 16 entries at 75, 50 and 12.5 frames per second."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {
            "encodec": transformers.EncodecModel(
                transformers.EncodecConfig(
                    num_filters=4, hidden_size=16, codebook_size=16, num_lstm_layers=1,
                    target_bandwidths=[0.3, 0.6, 1.2],
                )
            ),
            "dac": transformers.DacModel(
                transformers.DacConfig(
                    encoder_hidden_size=4, decoder_hidden_size=32, downsampling_ratios=[2, 4, 5, 8], n_codebooks=4,
                    codebook_size=16, codebook_dim=4, sampling_rate=16000,
                )
            ),
            "mimi": transformers.MimiModel(
                transformers.MimiConfig(
                    num_filters=4, hidden_size=16, codebook_dim=8, codebook_size=16, num_quantizers=6,
                    vector_quantization_hidden_dimension=8, num_hidden_layers=1, intermediate_size=16,
                    upsample_groups=16, num_attention_heads=2, num_key_value_heads=2,
                )
            ),
        }  # fmt: skip
        places = {}
        for name, model in models.items():
            for key, tensor in model.state_dict().items():
                if key.split(".")[-1] in ("embed", "embed_sum"):  # new codebooks are all zero
                    tensor.normal_()
            places[name] = tmp_path_factory.mktemp("peers") / name
            model.save_pretrained(places[name])
    return places


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the DAC to damage."""
    shutil.copytree(folders["dac"], tmp_path / "dac")
    return tmp_path / "dac"


@pytest.fixture
def wave(speech) -> torch.Tensor:
    """9600 samples: whole frames of every kind."""
    return torch.from_numpy(speech[12000:21600]).float()


def reconstruct(peer: peers.Peer, wave: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(peer.reconstruct(wave)))


@pytest.mark.parametrize(
    ("name", "wanted", "codebooks", "kbit_per_s"),
    [
        ("encodec", 0.85, 2, 0.6), ("encodec", 9, 4, 1.2), ("dac", 0.65, 3, 0.6), ("dac", 0.01, 1, 0.2),
        ("mimi", 0.23, 5, 0.25), ("mimi", 9, 6, 0.3), ("mimi", 0, 2, 0.1),
    ],
)  # fmt: skip
def test_bit_rate_is_the_nearest(folders, name, wanted, codebooks, kbit_per_s) -> None:
    """EnCodec has what its bandwidths allow (1, 2 or 4 codebooks); Mimi always its semantic codebook and one more."""
    peer = load_peer(f"{name}={folders[name]}", wanted, CPU)
    assert peer.codebooks == codebooks
    assert peer.kbit_per_s == pytest.approx(kbit_per_s)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("encodec", "EncodecModel", {"bandwidth": 0.6}),
        ("dac", "DacModel", {"n_quantizers": 3}),
        ("mimi", "MimiModel", {"num_quantizers": 6}),
    ],
)
def test_reconstruction_is_the_library_s(folders, wave: torch.Tensor, name, kind, settings) -> None:
    peer = load_peer(f"{name}={folders[name]}", 0.6, CPU)
    model = getattr(transformers, kind).from_pretrained(folders[name]).eval()
    with torch.no_grad():
        expected = model(wave[None, None], **settings).audio_values.flatten()
    found = reconstruct(peer, wave)
    assert len(found) == len(wave)
    assert found.std() > 0
    assert len(expected) > 0.9 * len(wave)
    torch.testing.assert_close(found[: len(expected)], expected[: len(wave)])


@pytest.mark.parametrize("name", ["encodec", "dac", "mimi"])
@pytest.mark.parametrize("samples", [1, 700])
def test_any_length_stays(folders, wave: torch.Tensor, name, samples: int) -> None:
    assert reconstruct(load_peer(f"{name}={folders[name]}", 0.3, CPU), wave[:samples]).shape == (samples,)


def test_long_recordings_go_in_pieces(folders, wave: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = load_peer(f"dac={folders['dac']}", 0.3, CPU)
    expected = torch.cat([reconstruct(peer, wave[:8000]), reconstruct(peer, wave[8000:])])
    monkeypatch.setattr(peers, "PIECE_SECONDS", 1)
    monkeypatch.setattr(peer, "sample_rate", 8000)
    blocks = list(peer.reconstruct(wave))
    assert [len(block) for block in blocks] == [8000, 1600]
    assert torch.equal(torch.cat(blocks), expected)


def test_other_names_are_an_error() -> None:
    for option in ("opus", "=folder", "Mimi=folder"):
        with pytest.raises(MimoError, match="expected NAME=FOLDER or NAME, one of encodec, dac, mimi"):
            load_peer(option, 1, CPU)


def test_another_codec_s_folder_is_an_error(folders) -> None:
    with pytest.raises(MimoError, match="expected a checkpoint of mimi, got one of 'dac'"):
        load_peer(f"mimi={folders['dac']}", 1, CPU)


def test_what_the_hub_cache_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.Mimi, "repository", "nobody-at-all/nothing")
    with pytest.raises(MimoError, match="no usable copy of nobody-at-all/nothing"):
        load_peer("mimi", 1, CPU)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(MimoError, match="--peer dac: cannot load"):
        load_peer(f"dac={folder}", 1, CPU)


def test_damaged_folders_are_an_error(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if "codebook" in key)
    save_file(
        {other: weights[other] for other in weights if other != key}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(MimoError, match=f"tensors are missing: {key}"):
        load_peer(f"dac={folder}", 1, CPU)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MimoError, match="--peer dac: cannot load"):
        load_peer(f"dac={folder}", 1, CPU)
    for text in ("[]", "[" * 100_000):
        (folder / "config.json").write_text(text)
        with pytest.raises(MimoError, match="expected a checkpoint folder with config"):
            load_peer(f"dac={folder}", 1, CPU)


def test_two_channels_are_an_error(folders, tmp_path: Path) -> None:
    shutil.copytree(folders["encodec"], tmp_path / "stereo")
    config = json.loads((tmp_path / "stereo" / "config.json").read_text()) | {"audio_channels": 2}
    (tmp_path / "stereo" / "config.json").write_text(json.dumps(config))
    with pytest.raises(MimoError, match="--peer encodec: "):
        load_peer(f"encodec={tmp_path / 'stereo'}", 1, CPU)
