"""Whether a request has run away: a loop in what it makes, found as it is made. Pure Python."""

from collections.abc import Hashable

from mimo_audio.engine.contracts import Guard


class Loop:
    """Finds a sequence of at most `longest` items that has come `repeats` times in a row, `least` items in all."""

    def __init__(self, longest: int, repeats: int, least: int) -> None:
        self.longest, self.repeats, self.least = longest, repeats, least
        self._last: list[Hashable] = []
        self._same = [0] * longest  # [p - 1]: how many items in a row equal the one p before

    def push(self, item: Hashable) -> bool:
        """Whether the items end with a loop, this one included."""
        found = False
        for period in range(1, self.longest + 1):
            if len(self._last) >= period and self._last[-period] == item:
                self._same[period - 1] += 1
                length = self._same[period - 1] + period
                found = found or length >= max(self.least, self.repeats * period)
            else:
                self._same[period - 1] = 0
        self._last = [*self._last[1 - self.longest :], item] if self.longest > 1 else [item]
        return found


class Watch:
    """One request under a guard."""

    def __init__(self, guard: Guard) -> None:
        self._most = guard.most_patches
        self._text = Loop(guard.longest, guard.repeats, guard.text)
        self._patches = Loop(guard.longest, guard.repeats, guard.patches)
        self._count = 0

    def text(self, token: int) -> bool:
        """Whether the request has run away with this text token."""
        return self._text.push(token)

    def patch(self, codes: bytes) -> bool:
        """Whether the request has run away with this patch."""
        self._count += 1
        return self._patches.push(codes) or (self._most is not None and self._count >= self._most)
