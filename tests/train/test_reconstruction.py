"""How many codebooks a step uses, which frames belong to a crop, and what a weight is."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from mimo_audio.train.recipe import LossWeights, Recipe
from mimo_audio.train.reconstruction import levels, weighted_sum

from .conftest import trainer_of


def test_levels_are_all_or_for_a_share_of_the_steps_any_smaller_number(recipe_file):
    training = Recipe.load(recipe_file).stage1
    assert training
    found = Counter(levels(training, step, 4) for step in range(2000))
    assert sorted(found) == [1, 2, 3, 4]
    assert found[4] == pytest.approx(1000, abs=100)  # the share is a half
    assert all(found[count] == pytest.approx(333, abs=70) for count in (1, 2, 3))
    assert {levels(replace(training, quantizer_dropout=0.0), step, 4) for step in range(100)} == {4}
    assert {levels(replace(training, quantizer_dropout=1.0), step, 1) for step in range(10)} == {1}


def test_a_crops_mel_begins_at_its_first_sample(recipe_file):
    stage = trainer_of(Recipe.load(recipe_file)).stage
    wave = torch.zeros(1, 2400)
    wave[0, 1200] = 1.0  # the centre of frame 5
    mel = stage.reconstruction.log_mel(stage.model, wave)[0]
    assert len(mel) == 10
    assert int(mel.mean(1).argmax()) == 5


def test_a_weighted_sum():
    losses = {"mel": torch.tensor(2.0), "commitment": torch.tensor(3.0), "wave": torch.tensor(100.0)}
    assert weighted_sum(losses, LossWeights(first_step=0, mel=5, commitment=0.5)).item() == pytest.approx(11.5)
