"""What is said in the world: everyday sentences from free collections; commands, numbers, times, questions by grammar.

Everyday sentences are WordNet's example phrases (Debian package wordnet-base) and the exchanges of chatterbot-corpus
(PyPI), those whose every word is common among them. Whoever has neither gets the grammars alone.
"""

import hashlib
import importlib.util
import random
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from mimo_audio.data.sentences import PEOPLE, ROOMS, command

WORDNET = Path("/usr/share/wordnet")
COMMON = 10  # sentences that each word of a sentence must be in
HELD_OUT_SHARE = 0.05  # of sentences, for measuring
UNSAFE = frozenset(  # no words for a demonstration, though WordNet has examples of them
    "abuse bitch bomb cocaine corpse damn dead death die died drug drugs execute executed gun guns hell heroin hitler "
    "jew jews kill killed killer killing murder murdered naked nazi porn prostitute rape raped sex sexual slave "
    "suicide terrorist torture tortured whore".split()
)
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
PLACES = "London Paris Berlin Rome Madrid Tokyo Boston Chicago Dublin Sydney".split()
CHORES = (
    "water the plants|feed the cat|buy some milk|call my mother|walk the dog|take the bread out of the oven|"
    "close the windows|clean the kitchen|write a letter|pay the bill|pick up the children|wash the car"
).split("|")
SONGS = "some music|a happy song|the news|the radio|some jazz|my favourite song|a story|something quiet".split("|")
THINGS = "keys book phone coat bag glasses umbrella hat cup ticket".split()


def number_words(number: int) -> str:
    """ "two hundred and five" for 205; from 0 to 999."""
    if number < 20:
        return UNITS[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f" {UNITS[number % 10]}" if number % 10 else "")
    rest = f" and {number_words(number % 100)}" if number % 100 else ""
    return f"{UNITS[number // 100]} hundred{rest}"


def ordinal_words(number: int) -> str:
    """ "twenty first" for 21; from 1 to 99."""
    tens, _, unit = number_words(number).rpartition(" ")
    irregular = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
    ending = irregular.get(unit) or {"ve": "fth", "ty": "tieth"}.get(unit[-2:], unit[-2:] + "th")
    return f"{tens} {ending if unit in irregular else unit[:-2] + ending}".strip()


def time_words(rng: random.Random) -> str:
    """A time of day."""
    hour = rng.randint(1, 12)
    after = number_words(hour % 12 + 1)
    return rng.choice(
        (
            f"{number_words(hour)} o'clock",
            f"half past {number_words(hour)}",
            f"a quarter past {number_words(hour)}",
            f"a quarter to {after}",
            f"{number_words(rng.choice((5, 10, 20)))} past {number_words(hour)}",
            f"{number_words(rng.choice((5, 10, 20)))} to {after}",
        )
    )


def grammar_sentence(rng: random.Random) -> str:
    """A command, number, time or question of a small world of about 300 words, as a sentence."""
    room, person, chore, day = rng.choice(ROOMS), rng.choice(PEOPLE).capitalize(), rng.choice(CHORES), rng.choice(DAYS)
    thing, count = rng.choice(THINGS), rng.randint(2, 60)
    return as_sentence(
        rng.choice(
            (
                command(rng),
                command(rng),
                f"set {rng.choice(('a timer', 'an alarm'))} for {number_words(count)} minutes",
                f"wake me up at {time_words(rng)}",
                f"play {rng.choice(SONGS)} in the {room}",
                f"remind me to {chore} {rng.choice((f'on {day}', f'at {time_words(rng)}', 'tomorrow', 'tonight'))}",
                f"please {chore}",
                f"add {number_words(count)} {rng.choice(('eggs', 'apples', 'lemons', 'potatoes'))} to my list",
                f"it is {time_words(rng)}",
                f"the train to {rng.choice(PLACES)} leaves at {time_words(rng)}",
                f"the number is {number_words(rng.randint(0, 999))}",
                f"my number is {' '.join(UNITS[rng.randrange(10)] for _ in range(rng.randint(4, 7)))}",
                f"today is {day} the {ordinal_words(rng.randint(1, 31))} of {rng.choice(MONTHS)}",
                f"what time is it in {rng.choice(PLACES)}?",
                f"how is the weather in {rng.choice(PLACES)} {rng.choice(('today', 'tomorrow', f'on {day}'))}?",
                f"where {'are' if thing.endswith('s') else 'is'} my {thing}?",
                f"who is in the {room}?",
                f"did {person} {rng.choice(('call', 'write', 'come home', 'find the ' + thing))} yesterday?",
                f"can you {chore} for me?",
                f"is the {room} {rng.choice(('warm', 'cold', 'clean', 'dark', 'empty'))}?",
            )
        )
    )


def as_sentence(words: str) -> str:
    """The words with a capital letter and an end."""
    words = words.strip()
    return words[0].upper() + words[1:] + ("" if words[-1] in ".!?" else ".")


def is_held_out_text(text: str) -> bool:
    """Whether no training may see a text; its words decide, whatever the case, the punctuation and the corpus."""
    digest = hashlib.sha256(" ".join(re.findall(r"[\w']+", text.lower())).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def everyday(wordnet: Path = WORDNET) -> tuple[list[str], list[tuple[str, str]]]:
    """Sentences of 3 to 16 common words, and exchanges of two of them, sorted; fewer where a collection is missing."""
    talks = _conversations()
    sentences = common_sentences([*_wordnet_examples(wordnet), *(said for talk in talks for said in talk)])
    known = set(sentences)
    pairs = {(_cleaned(a), _cleaned(b)) for talk in talks for a, b in pairwise(talk)}
    return sentences, sorted((a, b) for a, b in pairs if a in known and b in known)


def common_sentences(found: Iterable[str], common: int = COMMON) -> list[str]:
    """Those of 3 to 16 plain words, each of which is in at least `common` of them, cleaned and sorted."""
    kept = {}
    for text in map(_cleaned, found):
        plain = re.fullmatch(r"[A-Za-z0-9 ,.'!?;:-]+", text) and UNSAFE.isdisjoint(_words(text))
        if plain and 3 <= len(text.split()) <= 16 and len(text) <= 90:
            kept[text.lower()] = text
    count = Counter(word for text in kept for word in set(_words(text)))
    return sorted(text for text in kept.values() if all(count[word] >= common for word in _words(text)))


def _cleaned(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip(" -;,")
    return as_sentence(text) if text else ""


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _wordnet_examples(folder: Path) -> list[str]:
    """The phrases in quotes of WordNet's data files."""
    found = []
    for path in sorted(folder.glob("data.*")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if not line.startswith(" ") and "|" in line:
                found += re.findall(r'"([^"]+)"', line.split("|", 1)[1])
    return found


def _conversations() -> list[list[str]]:
    """Those of chatterbot-corpus, each a list of what is said in turn; none if it is not installed."""
    spec = importlib.util.find_spec("chatterbot_corpus")
    talks: list[list[str]] = []
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder, "data", "english").glob("*.yml")):
            for opening, said in re.findall(r"^\s*-\s*(-?)\s*(.+)$", path.read_text(encoding="utf-8"), re.M):
                if opening or not talks:
                    talks.append([])
                talks[-1].append(said.strip(" '\""))
    return talks
