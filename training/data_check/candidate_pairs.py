"""Pairs of inputs whose hashes are nearly equal, by the sorted neighbourhood method (Hernandez & Stolfo 1995).

The work grows with the number of hashes times its logarithm, however many of them are similar.
"""

import numpy as np
from numpy.typing import NDArray

_ROTATIONS = range(0, 64, 8)
_WINDOW = 24
"""The number of next hashes in each order that a hash is compared with."""


def candidate_pairs(hashes: NDArray[np.uint64], max_distance: int) -> NDArray[np.int64]:
    """The pairs that differ in at most `max_distance` bits and are neighbours in an order of the hashes.

    The hashes are sorted eight times, each time by the bits from another byte on. A pair can be missed only if each of
    these orders has at least 24 hashes between them.

    Args:
        hashes: 64-bit hashes `[N]`.
        max_distance: The largest number of different bits.

    Returns:
        Index pairs int64 `[P, 2]`, each once, the smaller index first, sorted.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for shift in _ROTATIONS:
        rotated = np.bitwise_or(hashes << np.uint64(shift), hashes >> np.uint64(64 - shift)) if shift else hashes
        order = np.argsort(rotated, kind="stable")
        ordered = hashes[order]
        for step in range(1, min(_WINDOW + 1, len(hashes))):
            is_near = np.bitwise_count(ordered[:-step] ^ ordered[step:]) <= max_distance
            found.append(np.sort(np.stack((order[:-step][is_near], order[step:][is_near]), axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)
