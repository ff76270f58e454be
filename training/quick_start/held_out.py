"""Held-out groups: chooses the sub-folders or labels of the outliers that no training step sees."""

from collections.abc import Mapping

import numpy as np

_SHARE, _LARGEST_SHARE = 0.2, 0.4
"""The share of the outliers to hold out, and the largest acceptable share."""
_MIN_GROUP = 5
_SEED = 0


def held_out_groups(sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The groups to hold out, about a fifth of the outliers, in alphabetical order.

    Detection of groups that were not trained on tells more about unseen inputs than detection of other inputs of the
    same groups. Groups are added in a fixed random order, so that the choice does not depend on their names.

    Args:
        sizes: The number of outliers in each group.

    Returns:
        The names; empty if there is only one group, or if each group is too large or has fewer than 5 outliers.
    """
    n = sum(sizes.values())
    names = sorted(sizes)
    held_out: list[str] = []
    size = 0
    for index in np.random.default_rng(_SEED).permutation(len(names)).tolist():
        name = names[index]
        if sizes[name] >= _MIN_GROUP and size + sizes[name] <= _LARGEST_SHARE * n:
            held_out.append(name)
            size += sizes[name]
        if size >= _SHARE * n:
            break
    return tuple(sorted(held_out))
