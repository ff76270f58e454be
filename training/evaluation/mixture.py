"""The paper's mixture of test inputs: one out-of-distribution input per five in-distribution ones, from every set."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.detection import OUTLIERS_PER_INLIER

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Mixture:
    """The rows drawn of the in-distribution test set, and of each out-of-distribution set."""

    inside: Rows
    outside: Mapping[str, Rows]


def draw_mixture(inside: int, outside: Mapping[str, int], *, seed: int) -> Mixture:
    """Draw from an in-distribution set of `inside` inputs and from sets of `outside` inputs, without replacement.

    Every set gives as many, or all it has where that is less. The in-distribution inputs are all taken, but for those
    left over from multiples of five, unless the sets together have too few for one per five. Raises ValueError when
    not one is to be had for five.
    """
    wanted = min(int(inside * OUTLIERS_PER_INLIER), sum(outside.values()))
    if wanted == 0:
        raise ValueError(f"{inside} in-distribution and {sum(outside.values())} outlier inputs make no 5:1 mixture")
    generator = np.random.default_rng(seed)
    shares = _spread(wanted, outside)
    take_in = round(wanted / OUTLIERS_PER_INLIER)
    return Mixture(
        inside=np.sort(generator.choice(inside, take_in, replace=False)),
        outside={name: np.sort(generator.choice(n, shares[name], replace=False)) for name, n in outside.items()},
    )


def _spread(wanted: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Equal shares of `wanted`; what a small set cannot give, the larger ones do."""
    shares: dict[str, int] = {}
    for i, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[name] = min(size, (wanted - sum(shares.values())) // (len(sizes) - i))
    return shares
