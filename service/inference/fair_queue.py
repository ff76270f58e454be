"""A queue that is fair to requests: each has a lane, and the lanes are served in turns."""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

Lane = TypeVar("Lane", bound=Hashable)
Item = TypeVar("Item")

# How many times as many items as are taken are looked at for similar ones.
_CHOICE = 4


class FairQueue(Generic[Lane, Item]):
    """Items in lanes; within a lane first in, first out. A long lane delays a short one by one item a turn, not by all.

    `size_of` a positive size: items that are taken together are then of similar size. Not thread-safe.
    """

    def __init__(self, size_of: Callable[[Item], int] | None = None) -> None:
        self._size_of = size_of
        self._lanes: OrderedDict[Lane, deque[Item]] = OrderedDict()
        self._next: list[tuple[Lane, Item]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, lane: Lane, items: Iterable[Item]) -> None:
        """Put `items`, at least one, at the end of `lane`; a new lane is served after those that are there."""
        waiting = self._lanes.setdefault(lane, deque())
        self._length -= len(waiting)
        waiting.extend(items)
        self._length += len(waiting)

    def discard(self, lane: Lane) -> None:
        """Drop what waits in `lane`, if anything does."""
        kept = [each for each in self._next if each[0] is not lane]
        self._length -= len(self._next) - len(kept) + len(self._lanes.pop(lane, ()))
        self._next = kept

    def take(self, count: int, room: float = math.inf) -> list[Item]:
        """The next `count` items, at least 1, or all there are: one of each lane, and round again.

        With sizes, the first of them and those that are most like it of the next few, as many as have `room` when each
        takes what the largest does: whoever waits comes first in the end, so nobody starves.
        """
        self._draw(count if self._size_of is None else _CHOICE * count)
        drawn, self._next = self._next, []
        if self._size_of is not None:
            chosen = _alike([self._size_of(item) for _, item in drawn], count, room)
            self._next = [each for index, each in enumerate(drawn) if index not in chosen]
            drawn = [each for index, each in enumerate(drawn) if index in chosen]
        self._length -= len(drawn)
        return [item for _, item in drawn]

    def _draw(self, count: int) -> None:
        while self._lanes and len(self._next) < count:
            lane, waiting = self._lanes.popitem(last=False)
            self._next.append((lane, waiting.popleft()))
            if waiting:
                self._lanes[lane] = waiting


def _alike(sizes: Sequence[int], count: int, room: float) -> set[int]:
    """The first of `sizes` and those most like it, by position: at most `count`, and as many as there is `room` for."""
    # Stable: the first one stays first, and among equals the order of arrival counts.
    order = sorted(range(len(sizes)), key=lambda index: max(sizes[index], sizes[0]) / min(sizes[index], sizes[0]))
    chosen: set[int] = set()
    largest = 0
    for index in order[:count]:
        largest = max(largest, sizes[index])
        if chosen and (len(chosen) + 1) * largest > room:
            break
        chosen.add(index)
    return chosen
