"""Seeded English sentences with a rich mix of sounds: templates over word lists, numbers, invented words."""

import random

NOUNS = (
    "anchor apple azure beach bird bottle boy breeze bridge butcher cabbage candle captain castle chair cheese "
    "child church cinema circle clock cloud coin coffee collar corner cousin daughter dentist desert doctor "
    "dragon earth eagle engine evening eyebrow father feather fiddle finger fish flower forest fountain friend "
    "garage garden giant ginger glove goose guitar hammer harbour heart honey hour house island jacket jewel "
    "journey judge juice jungle kettle king kitchen knife ladder lake language lawyer leather lemon letter light "
    "lion machine magic measure meadow mirror moment money monkey moon morning mother mountain mouse mouth museum "
    "music needle neighbour night noise number nurse ocean office oil onion orange owl package painter paper "
    "parrot path peach pepper picture pigeon pilot planet pleasure pocket poet potato prince pudding puzzle queen "
    "question rabbit radio railway reason ribbon river robin rose saddle salad sailor school scissors shadow "
    "sheep shoulder silver singer sister snow soldier song spoon square squirrel stable star station stone story "
    "street sugar summer table tailor teacher theatre thing thought thumb thunder ticket tiger toy train treasure "
    "tree trumpet turtle umbrella uncle valley vegetable village violin vision voice wagon wall water weather "
    "wheel whisper window winter wizard wolf woman wood year yellow-hammer yoghurt youth zebra zero zoo"
).split()
VERBS = (
    "admires answers asks attacks avoids bakes beats begins believes borrows breaks brings builds burns buys "
    "carries catches chases chooses cleans climbs covers crosses cuts dances describes digs draws dreams drinks "
    "drives drops eats enjoys escapes explains fears feeds fetches fights finds fixes follows forgets forgives "
    "gathers gives grows guards hears helps hides hits holds hurries imagines invites joins judges jumps keeps "
    "kicks knows laughs leads learns leaves lifts likes loses loves makes measures meets mixes moves needs "
    "notices offers opens orders owns paints passes plays points praises pulls pushes raises reaches reads "
    "refuses remembers repairs rides sees sells sends shakes shapes shares shouts shows sings sits sketches "
    "sleeps smells speaks starts steals stops studies swallows takes teaches tells thanks thinks throws touches "
    "trusts turns understands uses visits waits walks wants warns washes watches wears weighs wins wishes writes"
).split()
ADJECTIVES = (
    "ancient angry awful bitter blue brave brief bright broad busy calm careful charming cheap clever cloudy cold "
    "curious dark deep dizzy dull early easy empty enormous fair faithful famous fast fierce foolish fresh funny "
    "fuzzy gentle golden good grateful green happy hard heavy high hollow honest huge hungry icy jealous jolly "
    "joyful kind large lazy light little lonely long loud lovely lucky mild modern muddy narrow nervous new noisy "
    "odd old orange pale patient peculiar perfect pink pleasant polite poor precious proud purple quick quiet "
    "rare rich rough round royal rusty sad salty sharp shiny short shy silent silly slow small smooth soft solid "
    "sour special square steep strange strong sudden sunny sweet tall thick thin thirsty tiny unusual useful "
    "usual vague valuable various vast violet warm weak weird wet white wide wild wise wooden yellow young"
).split()
PLACES = (
    (
        "above behind below beneath beside beyond close-to far-from in-front-of inside near next-to on-top-of "
        "opposite outside through towards under with without"
    )
    .replace("-", "_")
    .split()
)
TIMES = (
    "today|tomorrow|yesterday|on monday|on tuesday|on wednesday|on thursday|on friday|on saturday|on sunday|"
    "in january|in june|at half past five|at eight o'clock|every now and then|once a year|"
    "before breakfast|after lunch|all day long|as usual|again"
).split("|")
DIGITS = "zero one two three four five six seven eight nine".split()
ROOMS = "kitchen bedroom bathroom office hall cellar attic garage".split()
DEVICES = "light lamp heater fan door window radio television alarm".split()
PEOPLE = "alice bob charles diana edward fiona george hannah ian julia kevin laura".split()
ONSETS = (
    "b bl br ch d dr f fl fr g gl gr h j k kl kr l m n p pl pr r s sh sk sl sm sn sp st str sw t th tr v w y z".split()
)
RIMES = (
    "ab ack ad aff ag air all am an ang ape ard arm ash at aze ear eck ed eem een eep ell em en erb ert esh et ib "
    "ice ick id ife ig ill im ine ing ip ish it ive oak oal ob ock oid oil oin ole ome ong oom oot ore orn osh ot "
    "ound ouse ow ub uck udge uff ug ull um un urn ush ut uzz"
).split()


def sentence(rng: random.Random) -> str:
    """One lower-case sentence of 3 to 14 words."""
    kind = rng.random()
    if kind < 0.15:
        return " ".join(rng.choice(DIGITS) for _ in range(rng.randint(2, 7)))
    if kind < 0.25:
        return command(rng)
    if kind < 0.35:
        return " ".join(_invented(rng) for _ in range(rng.randint(3, 6)))
    subject, thing = _noun_phrase(rng), _noun_phrase(rng)
    words = f"{subject} {rng.choice(VERBS)} {thing}"
    if rng.random() < 0.5:
        words += f" {rng.choice(PLACES).replace('_', ' ')} {_noun_phrase(rng)}"
    if rng.random() < 0.3:
        words = f"{rng.choice(TIMES)}, {words}" if rng.random() < 0.5 else f"{words} {rng.choice(TIMES)}"
    return words + ("?" if rng.random() < 0.15 else "")


def _noun_phrase(rng: random.Random) -> str:
    determiner = rng.choice(("the", "the", "my", "your", "her", "his", "our", "their", "this", "that", "every"))
    adjective = f" {rng.choice(ADJECTIVES)}" if rng.random() < 0.6 else ""
    return f"{determiner}{adjective} {rng.choice(NOUNS)}"


def command(rng: random.Random) -> str:
    """One of five simple forms, which a small grammar covers (mimo_audio.evaluate.recognisers)."""
    room, device, person = rng.choice(ROOMS), rng.choice(DEVICES), rng.choice(PEOPLE)
    return rng.choice(
        (
            f"turn {rng.choice(('on', 'off'))} the {room} {device}",
            f"call {person} at {rng.choice(DIGITS)} {rng.choice(TIMES)}",
            f"what is {rng.choice(DIGITS)} {rng.choice(('plus', 'minus', 'times'))} {rng.choice(DIGITS)}?",
            f"set the {device} in the {room} to {rng.choice(DIGITS)}",
            f"please tell {person} that the {rng.choice(NOUNS)} is {rng.choice(ADJECTIVES)}",
        )
    )


def _invented(rng: random.Random) -> str:
    """A word of one or two invented syllables, so that unusual sound sequences occur too."""
    return "".join(rng.choice(ONSETS) + rng.choice(RIMES) for _ in range(rng.randint(1, 2)))
