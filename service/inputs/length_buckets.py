"""Length buckets: a batch of sequences is computed in groups of similar length, so that little of it is padding."""

from collections.abc import Mapping, Sequence

import numpy as np

from service.inputs.modality import Array, Run

# Shorter sequences count as this long: among short ones, one large call is faster than several small ones. See
# docs/performance.md for what buckets gain.
_MIN_LENGTH = 32
_MAX_PADDING = 0.15


def run_in_length_buckets(run: Run, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
    """Call `run` once for each length bucket of a batch.

    Args:
        run: Computes a batch.
        items: N sequences.
        exclusive: Handed on to `run`.

    Returns:
        The outputs in the order of `items`, `[N]`. Where `run` returns rows of several values, whose lengths differ
        between buckets, an object array of N arrays.
    """
    buckets = length_buckets([padded_length(item) for item in items])
    if len(buckets) == 1:
        return run(items, exclusive=exclusive)
    outputs: dict[str, Array] = {}
    for bucket in buckets:
        for name, rows in run([items[index] for index in bucket], exclusive=exclusive).items():
            output = outputs.setdefault(name, np.empty(len(items), rows.dtype if rows.ndim == 1 else object))
            if rows.ndim == 1:
                output[bucket] = rows
            else:
                for index, row in zip(bucket, rows, strict=True):
                    output[index] = row
    return outputs


def padded_length(item: Array) -> int:
    """The length of `item` by which it is bucketed."""
    return max(len(item), _MIN_LENGTH)


def length_buckets(lengths: Sequence[int]) -> list[list[int]]:
    """The indices of `lengths` in buckets, in each of which at most 15% of the positions are padding."""
    buckets: list[list[int]] = []
    longest = total = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        if not buckets or total + length < (1 - _MAX_PADDING) * longest * (len(buckets[-1]) + 1):
            buckets.append([])
            longest, total = length, 0
        buckets[-1].append(index)
        total += length
    return buckets
