"""Holding out: a calibration split that no training step and no choice ever sees."""

import numpy as np

from training.data.images import Images
from training.errors import DataError


def hold_out(images: Images, size: int, seed: int) -> tuple[Images, Images]:
    """Split `images` at random into (kept, held out) with `size` images held out; the same seed, the same split."""
    if size >= len(images) // 2:
        raise DataError(
            images.source,
            f"holding out {size} of {len(images)} images would leave too few to train on",
            "Lower in_distribution.calibration_size",
        )
    order = np.random.default_rng(seed).permutation(len(images)).astype(np.int64)
    kept, held = np.sort(order[size:]), np.sort(order[:size])
    return images.rows(kept, f"{images.name} train"), images.rows(held, f"{images.name} calibration")
