"""Samplers refuse settings that mean nothing or contradict each other."""

import pytest
import torch

from mimo_audio.errors import GenerationError
from mimo_audio.lm.samplers import AUDIO, GREEDY, Sampler


def test_rows_repeat_the_settings():
    temperature, top_k, top_p = Sampler(temperature=0.5, top_k=7, top_p=0.25).rows(3, torch.device("cpu"))
    assert temperature.tolist() == [0.5] * 3
    assert temperature.dtype == torch.float32
    assert top_k.tolist() == [7] * 3
    assert top_k.dtype == torch.int32
    assert top_p.tolist() == [0.25] * 3
    assert GREEDY.rows(1, torch.device("cpu"))[0].item() == 0


def test_speech_is_drawn_as_published():
    assert Sampler(temperature=0.9, top_k=0, top_p=0.95) == AUDIO


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature: expected a number >= 0, up to 1e.09, got -0.1"),
        ({"temperature": float("nan")}, "temperature: expected a number >= 0, up to 1e.09, got nan"),
        ({"temperature": 1e39}, "temperature: expected a number >= 0, up to 1e.09, got 1e.39"),
        ({"temperature": "0.5"}, "temperature: expected a number >= 0, up to 1e.09, got '0.5'"),
        ({"temperature": 1.0, "top_k": -3}, "top_k: expected an integer >= 0"),
        ({"temperature": 1.0, "top_k": 2.5}, "top_k: expected an integer >= 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p: expected a number above 0 and up to 1, got 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p: expected a number above 0 and up to 1, got 1.5"),
        ({"top_p": 0.9}, "temperature 0 takes the largest logit and contradicts top_k 0, top_p 0.9"),
        ({"top_k": 5}, "temperature 0 takes the largest logit and contradicts top_k 5, top_p 1.0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(GenerationError, match="^" + message):
        Sampler(**settings)
