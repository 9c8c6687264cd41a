"""The shipped form: half the bytes, exact codebooks; and the model that ships: small enough, and it keeps the pitch."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mimo_audio.evaluate.metrics import f0_errors, median_f0_error, mel_distance
from mimo_audio.files import audio
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.train.export import export
from mimo_audio.train.recipe import Recipe

ASSETS = Path(str(files("mimo_audio") / "assets"))


def test_export_rounds_weights_and_keeps_codebooks(recipe_file, tmp_path):
    torch.manual_seed(0)
    model = AudioTokenizer(Recipe.load(recipe_file).model)
    export(model, tmp_path / "small")
    stored = load_file(tmp_path / "small" / "model.safetensors")
    assert stored["encoder.conv1.weight"].dtype == torch.bfloat16
    assert stored["encoder.quantizer.vq.layers.0._codebook.embed"].dtype == torch.float32
    loaded = AudioTokenizer.from_pretrained(tmp_path / "small")
    for name, tensor in model.state_dict().items():
        expected = tensor if name.endswith((".embed", ".window")) else tensor.bfloat16().float()
        assert torch.equal(loaded.state_dict()[name], expected), name


def test_the_shipped_model_is_eight_megabytes_at_most():
    assert sum(path.stat().st_size for path in (ASSETS / "nano").iterdir()) <= 8e6


@pytest.fixture(scope="module")
def round_trip() -> tuple[torch.Tensor, torch.Tensor]:
    """The demo sentence and what the shipped model makes of it."""
    wave = audio.read(ASSETS / "sentence.wav", 24000)
    model = AudioTokenizer.from_pretrained("nano")
    return wave, model.decode(model.encode(wave))[: len(wave)]


def test_the_shipped_model_keeps_the_pitch(round_trip):
    """A vocoder that hums at the frame rate has an F0 error near 50% here, or too few voiced frames for a median."""
    wave, decoded = (x.numpy() for x in round_trip)
    errors = f0_errors(wave, decoded, 24000)
    assert len(errors) > 150  # of about 400 voiced 10 ms frames
    assert median_f0_error(errors) < 0.05


def test_the_shipped_model_keeps_the_sound(round_trip):
    wave, decoded = (x.numpy() for x in round_trip)
    assert mel_distance(wave, decoded, 24000) < 6.5  # dB; silence or noise in its place is beyond 15
