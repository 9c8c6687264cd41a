"""Word error rate, speaker similarity and codebook usage by hand; judges by name."""

import numpy as np
import pytest

from mimo_audio.errors import MimoError
from mimo_audio.evaluate.recognisers import digits
from mimo_audio.evaluate.speech import codebook_usage, cosine, load_judge, word_error_rate


def test_word_error_rate_counts_over_all_words():
    """One substitution and one deletion in seven words; case and punctuation are no errors."""
    texts = ["Turn on the light, please.", "one-two", ""]
    assert word_error_rate(texts, ["turn off the light please", "one", "noise"]) == pytest.approx(2 / 7)
    assert word_error_rate(texts, texts) == 0
    assert word_error_rate(["", "?"], ["a", "b"]) is None


def test_cosine():
    assert cosine(np.array([1.0, 0]), np.array([1.0, 1])) == pytest.approx(0.5**0.5)
    assert cosine(np.array([[3.0, 0]]), np.array([[5.0, 0]])) == pytest.approx(1)
    assert cosine(np.zeros(2), np.ones(2)) is None


def test_codebook_usage():
    usage = codebook_usage(np.array([[0, 0, 1, 1], [2, 2, 2, 2]]), (4, 8, 8))
    assert usage == [
        {"size": 4, "used": 2, "perplexity": pytest.approx(2)},
        {"size": 8, "used": 1, "perplexity": pytest.approx(1)},
    ]


def test_a_judge_is_found_by_name():
    assert load_judge("--recogniser", "mimo_audio.evaluate.recognisers:digits") is digits


@pytest.mark.parametrize("name", ["nowhere:f", "math:nothing", "math", "math:pi", ""])
def test_a_judge_that_is_none_is_an_error(name):
    with pytest.raises(MimoError, match="--speaker: "):
        load_judge("--speaker", name)
