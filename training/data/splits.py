"""Splits: holds out in-distribution rows for calibration and testing, which training must not use."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.recipe import InDistribution

_MIN_TEST = 5
"""The metrics compare one outlier with five in-distribution test inputs."""

_STANDARDISATION_PARTS = 5
_STANDARDISATION_SEED = 0


@dataclass(frozen=True)
class InDistributionRows:
    """The row numbers of the splits, disjoint and each in ascending order."""

    train: NDArray[np.int64]
    calibration: NDArray[np.int64]
    test: NDArray[np.int64]


def split_in_distribution(n: int, config: InDistribution, seed: int, source: str) -> InDistributionRows:
    """Split the rows of the train source for training, calibration and, without a separate test set, testing.

    Args:
        n: The number of rows.
        config: The sizes of the splits.
        seed: The recipe's seed.
        source: The data set's path, for messages.

    Raises:
        DataError: Too few rows would remain for training.
    """
    rows, test = np.arange(n, dtype=np.int64), np.empty(0, dtype=np.int64)
    if config.test_size is not None:
        rows, test = split_rows(n, config.test_size, seed, source, key="in_distribution.test_size")
    train, calibration = split_rows(len(rows), config.calibration_size, seed, source)
    return InDistributionRows(rows[train], rows[calibration], test)


def split_rows(
    n: int, size: int, seed: int, source: str, key: str = "in_distribution.calibration_size"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out `size` of `n` rows.

    Returns:
        The remaining and the held-out row numbers, each in ascending order.

    Raises:
        DataError: `size` is half of the rows or more; names the recipe key `key`.
    """
    if size >= n // 2:
        raise DataError(
            source,
            f"holding out {size} of {n} examples would leave too few to train on",
            f"Lower {key}",
        )
    order = np.random.default_rng(seed).permutation(n).astype(np.int64)
    return np.sort(order[size:]), np.sort(order[:size])


def require_test_size(n: int, source: str) -> None:
    """Raise DataError unless the `n` in-distribution test inputs of `source` suffice for a comparison with outliers."""
    if n < _MIN_TEST:
        reason = f"gives {n} in-distribution test inputs without copies, the metrics need {_MIN_TEST} or more"
        raise DataError(source, reason, "Give a larger test set, or hold out more: in_distribution.test_size")


def split_standardisation(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split `n` held-out rows for calibration, and a random fifth for the standardisation of combined scores.

    The draw does not depend on the examples, so those that calibrate stay exchangeable with later inputs.

    Returns:
        The row numbers of both parts, each in ascending order.
    """
    drawn = np.random.default_rng(_STANDARDISATION_SEED).permutation(n)[: n // _STANDARDISATION_PARTS].astype(np.int64)
    return np.setdiff1d(np.arange(n, dtype=np.int64), drawn), np.sort(drawn)
