"""Texts as words to compare: recognisers write "$5" and "Mr.", people say "five dollars" and "mister".

Case and punctuation do not count, apostrophes join ("don't" is one word), every Chinese character is a word (as in
character error rates of Mandarin). Numerals become words. They may be read in several ways ("1984" as a year, a count,
or digit by digit; the dash of "9-4" as nothing or as a minus), so that a text has several readings.
"""

import re
import unicodedata
from collections.abc import Callable

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "_ ten twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
LONGEST = 12  # digits; longer ones are read one by one
IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
CURRENCIES = {"$": "dollars", "£": "pounds", "€": "euros"}
SYMBOLS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"([$£€])\s*(\d[\d,.]*\d|\d)", lambda match: f"{match[2]} {CURRENCIES[match[1]]}"),
    (r"(?<=\d)\s*%", " percent "),
    (r"(?<=\d)\s*°", " degrees "),
    (r"\b(\d{1,2}):00\b", r"\1 o'clock"),
    (r"\b(\d{1,2}):0([1-9])\b", r"\1 oh \2"),
    (r"\b(\d{1,2}):([1-5]\d)\b", r"\1 \2"),
    (r"\+", " plus "),
    (r"[×*]|(?<=\d)\s*x\s*(?=\d)", " times "),
    (r"÷", " divided by "),
    (r"(?<=\s)[-−–]\s*(?=\d)|^[-−](?=\d)", " minus "),
    (r"=", " equals "),
    (r"&", " and "),
)
SPELLINGS = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "ok": "okay",
    "grey": "gray",
    "theatre": "theater",
    "centre": "center",
    "metre": "meter",
    "cheque": "check",
    "jewellery": "jewelry",
}  # American forms, which Whisper writes
OUR = re.compile(r"^(behavi|col|endeav|fav|flav|harb|hon|hum|lab|neighb|rum|sav)our")  # American -or


def normalise(text: str) -> str:
    """The text's words as they are compared, in lower case, with a blank between; numerals read the usual way."""
    return readings(text)[0]


def readings(text: str) -> list[str]:
    """The normalised text in every way to read its numerals, the usual one first; one if it has none."""
    dashed = [text, re.sub(r"(?<=\d)[-−–](?=\d)", " minus ", text)]
    found = [_words(text, read) for text in dashed for read in (_usual, _cardinal, _digits)]
    return list(dict.fromkeys(found))


def _words(text: str, read: Callable[[str], str]) -> str:
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'").replace("‘", "'")
    for pattern, replacement in SYMBOLS:
        text = re.sub(pattern, replacement, text)
    text = re.sub(r"\b\d{1,3}(,\d{3})+\b", lambda match: _cardinal(match[0].replace(",", "")), text)
    text = re.sub(r"\b(\d+)'?(st|nd|rd|th|s)\b", lambda match: _inflected(match[1], match[2], read), text)
    text = re.sub(r"(\d+)\.(\d+)", lambda match: f" {read(match[1])} point {_digits(match[2])} ", text)
    text = re.sub(r"\d+", lambda match: f" {read(match[0])} ", text)
    text = text.replace("'", "")
    spaced = (f" {c} " if "\u4e00" <= c <= "\u9fff" else c if c.isalnum() or _is_mark(c) else " " for c in text)
    words = [_spelling(word) for word in "".join(spaced).split()]
    return " ".join(_without_fillers(words))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _spelling(word: str) -> str:
    return SPELLINGS.get(word) or OUR.sub(r"\1or", word)


def _without_fillers(words: list[str]) -> list[str]:
    """ "two hundred and five" is "two hundred five", "a hundred" is "one hundred"."""
    kept: list[str] = []
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        if word == "and" and before in ("hundred", "thousand") and after in (*UNITS, *TENS):
            continue
        kept.append("one" if word == "a" and after in ("hundred", "thousand", "million") else word)
    return kept


def _inflected(digits: str, ending: str, read: Callable[[str], str]) -> str:
    """ "80th" -> "eightieth", "1920s" -> "nineteen twenties"."""
    *others, last = read(digits).split()
    if ending == "s":
        last = f"{last[:-1]}ies" if last.endswith("y") else f"{last}es" if last == "six" else f"{last}s"
    elif last in IRREGULAR:
        last = IRREGULAR[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last.removesuffix('t')}th"
    return " ".join([*others, last])


def _usual(digits: str) -> str:
    """Years from 1100 to 2099 in pairs, but for the first of a millennium; what begins with a zero digit by digit."""
    if len(digits) > 1 and digits[0] == "0":
        return _digits(digits)
    value = int(digits)
    first, second = divmod(value, 100)
    if not (1100 <= value < 2100) or 2000 <= value < 2010:
        return _cardinal(digits)
    if second == 0:
        return f"{_count(first)} hundred"
    return f"{_count(first)} oh {UNITS[second]}" if second < 10 else f"{_count(first)} {_count(second)}"


def _cardinal(digits: str) -> str:
    return _count(int(digits)) if len(digits) <= LONGEST else _digits(digits)


def _digits(digits: str) -> str:
    return " ".join(UNITS[int(digit)] for digit in digits)


def _count(value: int) -> str:
    for size, name in SCALES:
        if value >= size:
            many, rest = divmod(value, size)
            return f"{_count(many)} {name}" + (f" {_count(rest)}" if rest else "")
    if value < 20:
        return UNITS[value]
    ten, unit = divmod(value, 10)
    return TENS[ten] + (f" {UNITS[unit]}" if unit else "")
