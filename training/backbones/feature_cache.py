"""Features of examples: computed once per backbone and set of images, and kept in the cache folder."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.backbones.backbone import Backbone, feature_session
from training.data import Examples, StoredArray
from training.data.token_ids import text_lengths

_BATCH = 32


def with_features(
    examples: Examples,
    backbone: Backbone,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Examples:
    """`examples` with their features in place of the images or texts, float32 `[N, 1, D]`.

    The axis of length 1 tells features from the token ids `[N, T]` of texts.

    Args:
        examples: Images uint8 `[N, H, W, C]`, or token ids int32 `[N, T]`.
        backbone: Computes the features.
        cache: The folder of the cache.
        progress: Called with the number of inputs done and their total.
    """
    path = cache / f"{backbone.sha256[:32]}-{examples.sha256[:32]}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                np.save(file, _compute(examples, backbone, progress))
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    features = np.load(path)
    return replace(examples, x=StoredArray(features[:, None]))


def _compute(
    examples: Examples, backbone: Backbone, progress: Callable[[int, int], None] | None
) -> NDArray[np.float32]:
    compute, n = feature_session(backbone), len(examples)
    features = np.empty((n, backbone.size), dtype=np.float32)
    # Texts of similar length together, which keeps padding small.
    is_text = len(examples.x.shape) == 2
    order = np.argsort(text_lengths(examples.x), kind="stable") if is_text else np.arange(n, dtype=np.int64)
    for start in range(0, n, _BATCH):
        rows = order[start : start + _BATCH]
        features[rows] = compute(examples.x[rows])
        if progress is not None:
            progress(start + len(rows), n)
    return features
