"""Questions of the world with their answers, each with the short thought that leads from one to the other."""

import random
from dataclasses import dataclass

from mimo_audio.data.world.texts import DAYS, MONTHS, as_sentence, number_words

OPPOSITES = (
    "hot:cold big:small fast:slow old:young high:low light:dark wet:dry full:empty open:closed early:late strong:weak "
    "long:short rich:poor happy:sad hard:soft near:far loud:quiet clean:dirty thick:thin left:right up:down day:night"
).split()
CAPITALS = (
    "France:Paris Italy:Rome Spain:Madrid Germany:Berlin Japan:Tokyo England:London Ireland:Dublin Greece:Athens "
    "Austria:Vienna Portugal:Lisbon Russia:Moscow Egypt:Cairo Norway:Oslo China:Beijing"
).split()
COLOURS = "snow:white grass:green blood:red coal:black milk:white lemons:yellow the_sky:blue leaves:green".split()
LEGS = "dog:4 cat:4 horse:4 bird:2 spider:8 fly:6 cow:4 chicken:2 sheep:4 bee:6".split()
YOUNG = "dog:puppy cat:kitten cow:calf sheep:lamb horse:foal hen:chick bear:cub duck:duckling".split()
SOUNDS = "dog:barks cat:meows cow:moos sheep:bleats lion:roars duck:quacks bird:sings horse:neighs".split()
PARTS = (
    "minutes:hour:60 seconds:minute:60 hours:day:24 days:week:7 months:year:12 weeks:year:52 cents:dollar:100"
).split()
USES = (
    "cut bread:a knife|open a door:a key|write a letter:a pen|see the stars:a telescope|eat soup:a spoon|"
    "dry your hands:a towel|light a room:a lamp|tell the time:a clock|sweep the floor:a broom"
).split("|")
# Ways to ask, so that also of a fact some can be held out.
LEADS = ("", "", "", "", "tell me, ", "please tell me, ", "do you know, ", "can you say, ", "I would like to know, ")
VERBS = {"plus": "+", "minus": "-", "times": "*"}


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the thought in between, as sentences."""

    text: str
    thought: str
    answer: str


def question(rng: random.Random) -> Question:
    """One of arithmetic, numbers, days, months, opposites and facts."""
    kinds = (_arithmetic, _arithmetic, _larger, _day, _month, _opposite, _capital, _colour, _legs, _young, _sound)
    text, thought, answer = rng.choice((*kinds, _parts, _use))(rng)
    return Question(*map(as_sentence, (rng.choice(LEADS) + text, thought, answer)))


def _arithmetic(rng: random.Random) -> tuple[str, str, str]:
    verb = rng.choice(tuple(VERBS))
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    if verb == "minus":
        a, b = max(a, b), min(a, b)
    elif verb == "times":
        a, b = a % 10, b % 10
    result = {"plus": a + b, "minus": a - b, "times": a * b}[verb]
    said = f"{number_words(a)} {verb} {number_words(b)}"
    asked = rng.choice((f"what is {said}?", f"how much is {said}?", f"can you tell me what {said} is?"))
    return asked, f"{a} {VERBS[verb]} {b} = {result}", f"it is {number_words(result)}"


def _larger(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.sample(range(1, 100), 2)
    word = rng.choice(("larger", "smaller"))
    result = max(a, b) if word == "larger" else min(a, b)
    thought = f"{max(a, b)} > {min(a, b)}"
    return f"which number is {word}, {number_words(a)} or {number_words(b)}?", thought, number_words(result)


def _day(rng: random.Random) -> tuple[str, str, str]:
    day, step = rng.randrange(7), rng.choice((-1, 1, 2, 3))
    words = {-1: "the day before", 1: "the day after", 2: "two days after", 3: "three days after"}[step]
    chain = [DAYS[(day + k) % 7] for k in (range(0, step + 1) if step > 0 else (0, -1))]
    return f"what day is {words} {DAYS[day]}?", f"{', then '.join(chain)}", f"it is {chain[-1]}"


def _month(rng: random.Random) -> tuple[str, str, str]:
    month, step = rng.randrange(12), rng.choice((-1, 1))
    word = "before" if step < 0 else "after"
    result = MONTHS[(month + step) % 12]
    return f"which month comes {word} {MONTHS[month]}?", f"{word} {MONTHS[month]} comes {result}", f"it is {result}"


def _opposite(rng: random.Random) -> tuple[str, str, str]:
    pair = rng.choice(OPPOSITES).split(":")
    a, b = rng.sample(pair, 2)
    return f"what is the opposite of {a}?", f"not {a} means {b}", f"the opposite of {a} is {b}"


def _capital(rng: random.Random) -> tuple[str, str, str]:
    country, city = rng.choice(CAPITALS).split(":")
    if rng.random() < 0.5:
        return f"what is the capital of {country}?", f"{country} is governed from {city}", f"it is {city}"
    return f"which country has the capital {city}?", f"{city} governs {country}", f"it is {country}"


def _colour(rng: random.Random) -> tuple[str, str, str]:
    thing, colour = rng.choice(COLOURS).replace("_", " ").split(":")
    many = thing in ("lemons", "leaves")
    thought = f"{thing} {'look' if many else 'looks'} {colour}"
    return f"what colour {'are' if many else 'is'} {thing}?", thought, f"{'they are' if many else 'it is'} {colour}"


def _legs(rng: random.Random) -> tuple[str, str, str]:
    animal, legs = rng.choice(LEGS).split(":")
    count = rng.randint(1, 3)
    name = {"fly": "flies"}.get(animal, animal if animal == "sheep" else animal + "s") if count > 1 else animal
    many = number_words(count * int(legs))
    verb, lead = ("do", number_words(count)) if count > 1 else ("does", "a")
    return f"how many legs {verb} {lead} {name} have?", f"{count} * {legs} = {count * int(legs)}", f"{many} legs"


def _young(rng: random.Random) -> tuple[str, str, str]:
    animal, young = rng.choice(YOUNG).split(":")
    return f"what is a young {animal} called?", f"the child of a {animal} is a {young}", f"it is called a {young}"


def _sound(rng: random.Random) -> tuple[str, str, str]:
    animal, sound = rng.choice(SOUNDS).split(":")
    return f"which animal {sound}?", f"the one that {sound} is the {animal}", f"a {animal} {sound}"


def _parts(rng: random.Random) -> tuple[str, str, str]:
    part, whole, count = rng.choice(PARTS).split(":")
    article = "an" if whole == "hour" else "a"
    thought = f"1 {whole} = {count} {part}"
    return f"how many {part} are in {article} {whole}?", thought, f"{number_words(int(count))} {part}"


def _use(rng: random.Random) -> tuple[str, str, str]:
    purpose, tool = rng.choice(USES).split(":")
    return f"what do you need to {purpose}?", f"to {purpose} one takes {tool}", f"you need {tool}"
