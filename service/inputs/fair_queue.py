"""A queue that is fair to requests: each request has a lane, and the lanes take turns."""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

Lane = TypeVar("Lane", bound=Hashable)
Item = TypeVar("Item")

# Candidates per item taken, among which the items of similar size are chosen.
_CANDIDATES_PER_ITEM = 4


class FairQueue(Generic[Lane, Item]):
    """Items in lanes: first in, first out within a lane, round-robin between lanes.

    A long lane delays a short one by one item per round. Not thread-safe.
    """

    def __init__(self, size_of: Callable[[Item], int] | None = None) -> None:
        """An empty queue.

        Args:
            size_of: The size of an item, positive. Items taken together are then of similar size.
        """
        self._size_of = size_of
        self._lanes: OrderedDict[Lane, deque[Item]] = OrderedDict()
        self._candidates: list[tuple[Lane, Item]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, lane: Lane, items: Iterable[Item]) -> None:
        """Append `items`, at least one, to `lane`. A new lane's turn comes after those of the existing lanes."""
        queued = self._lanes.setdefault(lane, deque())
        before = len(queued)
        queued.extend(items)
        self._length += len(queued) - before

    def discard(self, lane: Lane) -> list[Item]:
        """Remove and return the items of `lane`, none if there is no such lane."""
        removed = [item for owner, item in self._candidates if owner is lane]
        if removed:
            self._candidates = [candidate for candidate in self._candidates if candidate[0] is not lane]
        removed += self._lanes.pop(lane, ())
        self._length -= len(removed)
        return removed

    def ahead_of_new_lane(self, count: int) -> Iterator[Item]:
        """The items that are taken before the last of `count` items of a lane that would be new."""
        yield from (item for _, item in self._candidates)
        for queued in self._lanes.values():
            yield from islice(queued, count)

    def take(self, count: int, max_positions: float = math.inf) -> list[Item]:
        """Remove and return the next items: one of each lane per round.

        With sizes: the oldest item and the most similar of the next few. The oldest is always taken, so that no item
        waits forever.

        Args:
            count: Most items to take, at least 1.
            max_positions: With sizes, most padded positions: the number of items times the largest size. A single item
                may exceed it.
        """
        self._draw_candidates(count if self._size_of is None else _CANDIDATES_PER_ITEM * count)
        taken, self._candidates = self._candidates, []
        if self._size_of is not None:
            chosen = _most_similar([self._size_of(item) for _, item in taken], count, max_positions)
            self._candidates = [candidate for index, candidate in enumerate(taken) if index not in chosen]
            taken = [candidate for index, candidate in enumerate(taken) if index in chosen]
        self._length -= len(taken)
        return [item for _, item in taken]

    def _draw_candidates(self, count: int) -> None:
        while self._lanes and len(self._candidates) < count:
            lane, queued = self._lanes.popitem(last=False)
            self._candidates.append((lane, queued.popleft()))
            if queued:
                self._lanes[lane] = queued


def _most_similar(sizes: Sequence[int], count: int, max_positions: float) -> set[int]:
    """The indices of the first of `sizes` and of those most similar to it, within the bounds of `FairQueue.take`."""
    # The sort is stable: the first item stays first, and equally similar ones keep their order of arrival.
    order = sorted(range(len(sizes)), key=lambda index: max(sizes[index], sizes[0]) / min(sizes[index], sizes[0]))
    chosen: set[int] = set()
    largest = 0
    for index in order[:count]:
        largest = max(largest, sizes[index])
        if chosen and (len(chosen) + 1) * largest > max_positions:
            break
        chosen.add(index)
    return chosen
