"""Holding out: a calibration split, and where asked for a test split, that no training step and no choice ever sees."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.recipe import InDistribution


@dataclass(frozen=True)
class InDistributionRows:
    """Disjoint row numbers, each ascending."""

    train: NDArray[np.int64]
    calibration: NDArray[np.int64]
    test: NDArray[np.int64]


def split_in_distribution(n: int, plan: InDistribution, seed: int, source: str) -> InDistributionRows:
    """The rows of `n` that `plan` trains on, calibrates with and, without a test set of its own, tests on."""
    whole, test = np.arange(n, dtype=np.int64), np.empty(0, dtype=np.int64)
    if plan.test_size is not None:
        whole, test = split_rows(n, plan.test_size, seed, source, key="in_distribution.test_size")
    train, calibration = split_rows(len(whole), plan.calibration_size, seed, source)
    return InDistributionRows(whole[train], whole[calibration], test)


def split_rows(
    n: int, size: int, seed: int, source: str, key: str = "in_distribution.calibration_size"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of `n` that are kept and the `size` that are held out, each ascending; DataError if too many."""
    if size >= n // 2:
        raise DataError(
            source,
            f"holding out {size} of {n} examples would leave too few to train on",
            f"Lower {key}",
        )
    order = np.random.default_rng(seed).permutation(n).astype(np.int64)
    return np.sort(order[size:]), np.sort(order[:size])
