"""Word error rates by hand, and their bootstrap intervals against properties."""

import numpy as np
import pytest

from mimo_audio.evaluate.word_errors import Transcripts, word_error_rates


def test_rates_count_over_all_words():
    """In originals one substitution and one deletion in seven words; case and punctuation are no errors."""
    rates = word_error_rates(
        [
            Transcripts("Turn on the light, please.", "turn off the light please", "turn on the light please"),
            Transcripts("one-two", "one", "nine nine nine"),
            Transcripts("", "noise", "more noise"),
        ]
    )
    assert rates["words"] == 7
    assert rates["wer_original"] == pytest.approx(2 / 7)
    assert rates["wer_decoded"] == pytest.approx(3 / 7)
    assert rates["wer_difference"] == pytest.approx(1 / 7)


def test_without_words_there_is_no_rate():
    rates = word_error_rates([Transcripts("?", "a", "b")])
    assert rates["words"] == 0
    assert {value for key, value in rates.items() if key != "words"} == {None}


def test_one_file_has_no_interval():
    rates = word_error_rates([Transcripts("a b", "a", "b")])
    assert rates["wer_original"] == 0.5
    assert rates["wer_original_95"] is None


def test_an_interval_covers_what_it_should():
    """95% of draws of 60 files hold the true rate of 0.3 in their interval; 100 draws, so 85 are certain enough."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        files = [
            Transcripts("a b", "a b", " ".join("ab"[i] if rng.random() > 0.3 else "x" for i in range(2)))
            for _ in range(60)
        ]
        low, high = word_error_rates(files)["wer_decoded_95"]
        covered += low <= 0.3 <= high
    assert 85 <= covered <= 100


def test_the_difference_is_paired():
    """Files are hard or easy for both alike: rates vary with the draw of files, their difference does not."""
    hard, easy = Transcripts("a b c d", "x x x d", "x x x x"), Transcripts("a b c d", "a b c d", "a b c x")
    rates = word_error_rates([hard, easy] * 20)
    assert rates["wer_difference_95"] == pytest.approx([0.25, 0.25])
    assert rates["wer_original_95"][1] - rates["wer_original_95"][0] > 0.1
    assert rates == word_error_rates([hard, easy] * 20)
