"""The audio-to-text objective: the right targets, gradient through the codes, and it learns to read."""

import math

import pytest
import torch

from mimo_audio.train.audio_data import AudioData
from mimo_audio.train.recipe import AudioToText
from mimo_audio.train.text_reader import TextReader

from .conftest import READER, load, step, trainer_of

SIZES = AudioToText(**READER)


@pytest.fixture
def reader() -> TextReader:
    torch.manual_seed(0)
    return TextReader(8, SIZES)


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def test_an_untrained_reader_guesses(reader):
    torch.nn.init.zeros_(reader.head.weight)
    assert reader(vectors(7), [4, 3], ["abc", "é"]).item() == pytest.approx(math.log(258))


def test_company_changes_nothing(reader):
    """A batch's loss is the mean over all bytes, each as its recording alone gives it."""
    rows, lengths, texts = vectors(9), [2, 7], ["a longer text", "b"]
    alone = [
        reader(part, [n], [text]).item() * (len(text) + 1)
        for part, n, text in zip(rows.split(lengths), lengths, texts, strict=True)
    ]
    assert reader(rows, lengths, texts).item() == pytest.approx(sum(alone) / 16, rel=1e-5)


def test_bfloat16_products_change_little_and_warn_of_nothing(reader):
    exact = reader(vectors(7), [4, 3], ["abc", "é"])
    with torch.autocast("cpu", torch.bfloat16):
        assert reader(vectors(7), [4, 3], ["abc", "é"]).item() == pytest.approx(exact.item(), rel=0.01)


def test_it_learns_which_sound_says_what(reader):
    rows = torch.cat((vectors(5, 1), vectors(5, 2)))
    optimizer = torch.optim.AdamW(reader.parameters(), 0.02)
    for _ in range(60):
        loss = reader(rows, [5, 5], ["yes", "no"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right, wrong = reader(rows, [5, 5], ["yes", "no"]), reader(rows, [5, 5], ["no", "yes"])
    assert right.item() < 0.1
    assert wrong.item() > 1


@pytest.mark.parametrize("number", [0, 3])  # before and after the codebooks have started
def test_its_gradient_reaches_the_encoder(number, with_text, tmp_path):
    for weights in with_text["stage1"]["weights"]:
        weights |= dict.fromkeys(("coarse", "magnitude", "phase", "mel", "wave", "commitment"), 0)
    trainer = trainer_of(load(tmp_path, with_text))
    if number:
        step(trainer, 2)
    losses = step(trainer, number)
    assert losses["loss"] == pytest.approx(10 * losses["audio_to_text"], rel=1e-5)
    gradient = trainer.stage.model.encoder.conv1.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_whole_recordings_come_with_their_own_text(tones):
    data = AudioData(
        sources={tones / "manifest.jsonl": 1.0}, sample_rate=24000, samples=960, batch=1, seed=0, frame=960,
        utterances=6, seconds=0.6,
    )  # fmt: skip
    batch = data(0)
    assert [len(wave) for wave in batch.utterances] == [12480] * 6  # 0.5 s, up to whole frames
    pitches = {"one": 110, "two two": 170, "three": 230}
    assert set(batch.texts) > {"one"} or len(set(batch.texts)) > 1
    for wave, text in zip(batch.utterances, batch.texts, strict=True):
        assert wave[12000:].abs().max() == 0 < wave[11000:12000].abs().max()
        spectrum = torch.fft.rfft(wave[:12000]).abs()
        assert int(spectrum.argmax()) * 2 == pytest.approx(pitches[text], abs=4)
