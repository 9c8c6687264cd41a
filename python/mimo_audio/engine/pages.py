"""Who holds which page of the key-value pool, and what the pages hold that may be used again. Pure Python, no tensors.

A page has room for `size` positions. What lies in it is known by marks: a hash of all groups up to every `MARK`-th
position, so that equal marks mean equal positions from the first one on, and with them equal keys and values. Whole
pages are shared by all who begin alike; of a page that is alike in part the part is copied. A page that nobody holds
keeps what it knows until its room is needed; the one not used for longest goes first, of one request the last before
the first.
"""

from collections import OrderedDict
from dataclasses import dataclass

MARK = 16  # positions


@dataclass(frozen=True)
class Copy:
    """The first `count` positions of a page go to another one."""

    source: int
    target: int
    count: int


class PagePool:
    """Pages 0 .. count - 1."""

    def __init__(self, count: int, size: int) -> None:
        if size < MARK or size % MARK:
            raise ValueError(f"size: expected a multiple of {MARK} positions, got {size}")
        self.count, self.size = count, size
        self._free = list(range(count - 1, -1, -1))
        self._holders = [0] * count
        self._kept: OrderedDict[int, None] = OrderedDict()  # pages without holders that know something, oldest first
        self._known: list[list[bytes]] = [[] for _ in range(count)]  # marks by page
        self._places: dict[bytes, int] = {}  # page by mark

    @property
    def available(self) -> int:
        """Pages that `take` could give."""
        return len(self._free) + len(self._kept)

    @property
    def held(self) -> int:
        """Pages that somebody holds."""
        return self.count - self.available

    @property
    def kept(self) -> int:
        """Pages that nobody holds and that know something."""
        return len(self._kept)

    def take(self) -> int | None:
        """A page to write to, held once; None if all are held."""
        if self._free:
            page = self._free.pop()
        elif self._kept:
            page, _ = self._kept.popitem(last=False)
            self._forget(page)
        else:
            return None
        self._holders[page] = 1
        return page

    def share(self, page: int) -> None:
        """Holds a page once more."""
        self._kept.pop(page, None)
        self._holders[page] += 1

    def release(self, pages: list[int]) -> None:
        """Holds the pages of a request, in their order, once less."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if self._known[page]:
                    self._kept[page] = None
                else:
                    self._free.append(page)

    def learn(self, page: int, mark: bytes) -> None:
        """The page now holds the positions up to this mark."""
        if mark not in self._places:
            self._places[mark] = page
            self._known[page].append(mark)

    def find(self, mark: bytes) -> int | None:
        """A page that holds the positions up to this mark."""
        return self._places.get(mark)

    def forget(self) -> None:
        """Nothing that was learnt counts any more."""
        self._places.clear()
        self._known = [[] for _ in range(self.count)]
        self._free += self._kept
        self._kept.clear()

    def _forget(self, page: int) -> None:
        for mark in self._known[page]:
            del self._places[mark]
        self._known[page] = []
