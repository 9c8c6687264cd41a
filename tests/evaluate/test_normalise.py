"""Texts as words: how people write numbers, names and symbols comes out as what they say."""

import pytest

from mimo_audio.evaluate.normalise import normalise, readings


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Turn on the light, please!", "turn on the light please"),
        ("I don't; it’s 5 o'clock.", "i dont its five oclock"),
        ("at 5:00, at 5:07 and at 11:30", "at five oclock at five oh seven and at eleven thirty"),
        ("What is 3 + 4? 9 - 4?", "what is three plus four nine minus four"),
        ("7 x 8 = 56", "seven times eight equals fifty six"),
        ("It is -3°", "it is minus three degrees"),
        ("1, 2, 3", "one two three"),
        ("1,000,000 people and 1,234.", "one million people and one thousand two hundred thirty four"),
        ("$205, £3.50", "two hundred five dollars three point five zero pounds"),
        ("$1,500 and 40%", "one thousand five hundred dollars and forty percent"),
        ("two hundred and five, a hundred and one", "two hundred five one hundred one"),
        ("salt and five, a thousand miles", "salt and five one thousand miles"),
        ("1st, 2nd, 3rd, 4th, 12th, 20th", "first second third fourth twelfth twentieth"),
        ("21st, 100th", "twenty first one hundredth"),
        ("the 1920s, the 1950's, 6s", "the nineteen twenties the nineteen fifties sixes"),
        ("1984, 1905, 1900", "nineteen eighty four nineteen oh five nineteen hundred"),
        ("2007, 2015", "two thousand seven twenty fifteen"),
        ("3000 men in 1066", "three thousand men in one thousand sixty six"),
        ("007", "zero zero seven"),
        ("Mr. and Mrs. Gray saw grey colours & a neighbour", "mister and missus gray saw gray colors and a neighbor"),
        ("A 20-year-old yellow-hammer", "a twenty year old yellow hammer"),
        ("一二三，今天。", "一 二 三 今 天"),
        ("Ｎａïｖｅ ﬁsh", "naïve fish"),
        ("…!", ""),
    ],
)  # fmt: skip
def test_words(written: str, said: str) -> None:
    assert normalise(written) == said
    assert normalise(said) == said


def test_a_numeral_has_several_readings() -> None:
    assert readings("in 1984") == [
        "in nineteen eighty four",
        "in one thousand nine hundred eighty four",
        "in one nine eight four",
    ]
    assert {"nine four", "nine minus four"} <= set(readings("9-4"))
    assert readings("a man-to-man talk") == ["a man to man talk"]


def test_counts_of_any_length() -> None:
    """Against counting by hand: what is written is what was written out."""
    assert normalise("999999999999") == (
        "nine hundred ninety nine billion nine hundred ninety nine million nine hundred ninety nine thousand nine "
        "hundred ninety nine"
    )
    assert normalise("1" * 13) == " ".join(["one"] * 13)
    assert normalise("0") == "zero"
