"""Holding out: a calibration split that no training step and no choice ever sees."""

import numpy as np
from numpy.typing import NDArray

from training.data.examples import Examples
from training.errors import DataError


def hold_out(examples: Examples, size: int, seed: int) -> tuple[Examples, Examples]:
    """Split `examples` at random into (kept, held out) with `size` held out; the same seed, the same split."""
    kept, held = split_rows(len(examples), size, seed, examples.source)
    return examples.rows(kept, f"{examples.name} train"), examples.rows(held, f"{examples.name} calibration")


def split_rows(n: int, size: int, seed: int, source: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of `n` that are kept and the `size` that are held out, each ascending; DataError if too many."""
    if size >= n // 2:
        raise DataError(
            source,
            f"holding out {size} of {n} examples would leave too few to train on",
            "Lower in_distribution.calibration_size",
        )
    order = np.random.default_rng(seed).permutation(n).astype(np.int64)
    return np.sort(order[size:]), np.sort(order[:size])
