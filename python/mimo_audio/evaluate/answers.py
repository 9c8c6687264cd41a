"""Whether an answer says what the right one says, judged by its words."""

from mimo_audio.evaluate.normalise import SCALES, TENS, UNITS, normalise, readings

EMPTY = frozenset("a an the it its is are was they there that he she you of use to in on at and answer so um".split())
NUMBERS = frozenset((*UNITS, *TENS, "oh", *(name for _, name in SCALES)))
DENIALS = frozenset("not no never isnt arent wasnt".split())
MOST_MORE = 4  # words beside the right ones: an answer that says everything is not right


def is_right(reference: str, answer: str) -> bool:
    """Whether the words of the reference, function words aside, stand together in the answer, with few others.

    A numeral may be read in any way ("it is 7", "seven"), but is a whole one: "seven" is not in "seventy seven". None
    of the other words denies. Meant for answers of a few words.
    """
    wanted = _content(normalise(reference))
    return any(_holds(_content(said), wanted) for said in readings(answer))


def _holds(said: list[str], wanted: list[str]) -> bool:
    for start in range(len(said) - len(wanted) + 1):
        end = start + len(wanted)
        before, after = said[:start], said[end:]
        cut = (before and {before[-1], wanted[0]} <= NUMBERS) or (after and {wanted[-1], after[0]} <= NUMBERS)
        few = len(before) + len(after) <= MOST_MORE and not DENIALS & {*before, *after}
        if said[start:end] == wanted and few and not cut:
            return True
    return False


def _content(text: str) -> list[str]:
    """The words but for empty ones; all of them if nothing is left."""
    words = text.split()
    return [word for word in words if word not in EMPTY] or words
