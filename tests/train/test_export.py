"""The shipped form: half the bytes, exact codebooks; and the model that ships: small enough, and it keeps the pitch."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mimo_audio.evaluate import metrics
from mimo_audio.evaluate.recognisers import digits
from mimo_audio.evaluate.word_errors import Transcripts, word_error_rates
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


@pytest.fixture(scope="module", params=["sentence.wav", "digits.wav"])
def round_trip(request: pytest.FixtureRequest) -> tuple[str, np.ndarray, np.ndarray]:
    """A shipped clip, and what the shipped model makes of it."""
    wave = audio.read(ASSETS / request.param, 24000)
    model = AudioTokenizer.from_pretrained("nano")
    return request.param, wave.numpy(), model.decode(model.encode(wave))[: len(wave)].numpy()


def test_the_shipped_model_is_as_good_as_it_was(round_trip):
    """Little below what it scores: PESQ by 0.1, STOI by 0.02; a vocoder that hums has an F0 error near 50%."""
    name, wave, decoded = round_trip
    nb, wb, intelligible, distance, error, voiced = {
        "sentence.wav": (2.39, 2.02, 0.882, 4.2, 0.02, 400),
        "digits.wav": (1.59, 1.40, 0.854, 10.9, 0.04, 120),
    }[name]
    assert metrics.pesq_nb(wave, decoded, 24000) > nb
    assert metrics.pesq_wb(wave, decoded, 24000) > wb
    assert metrics.stoi(wave, decoded, 24000) > intelligible
    assert metrics.mel_distance(wave, decoded, 24000) < distance
    errors = metrics.f0_errors(wave, decoded, 24000)
    assert len(errors) > voiced
    assert metrics.median_f0_error(errors) < error


def test_the_digits_are_heard_in_the_shipped_clip_and_its_resynthesis(round_trip):
    name, wave, decoded = round_trip
    if name == "digits.wav":
        said = "three one four one five nine two six"
        rates = word_error_rates([Transcripts(said, digits(wave, 24000), digits(decoded, 24000))])
        assert rates["wer_original"] <= 1 / 8
        assert rates["wer_decoded"] <= 3 / 8
