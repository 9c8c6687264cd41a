"""Word error rates by hand, and their bootstrap intervals against properties."""

import numpy as np
import pytest

from mimo_audio.evaluate.word_errors import Errors, Transcripts, count_errors, word_error_rates


def test_errors_by_hand():
    """One word substituted, one inserted; of letters two substituted (a-t to o-f) and four inserted."""
    assert count_errors("Sit at home.", "sit of home now y") == Errors(3, 3, 9, 6)
    assert count_errors("Sit at home.", "") == Errors(3, 3, 9, 9)
    assert count_errors("...", "What? No.") == Errors(0, 2, 0, 6)
    assert count_errors("你好吗？", "你好马") == Errors(3, 1, 3, 1)


def test_how_numbers_are_written_is_no_error():
    """But all numerals of a text are read in one way: here as years and counts."""
    assert count_errors("Call nine one one in nineteen eighty-four", "Call 911 in 1984.").wrong_words == 2
    for reference, hypothesis in (
        ("call bob at five", "Call Bob at 5."),
        ("three one four", "314"),
        ("What is 3 plus 4?", "what is three plus four"),
        ("two thousand and five", "2005"),
        ("what is nine minus four", "What is 9-4?"),
    ):
        assert count_errors(reference, hypothesis).wrong_words == 0
        assert count_errors(reference, hypothesis).wrong_characters == 0


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
