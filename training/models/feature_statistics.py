"""Statistics of training features for the scores `mahalanobis` and `knn`: constants of a classifier's graph."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from bundle import ModelOutput

MAX_REFERENCES = 4096
"""The largest number of training examples that `knn` compares an input with."""

MAX_EXAMPLES = 50_000
"""The number of training examples that statistics are computed from, evenly spaced over the set."""

Statistics = Mapping[ModelOutput, Tensor]
"""The name of each constant -> its value in float32."""


def fit_mahalanobis(features: NDArray[np.float32], targets: NDArray[np.int64]) -> Statistics:
    """The mean, the whitening and the whitened class means of normalised features.

    The covariance within the classes is shrunk (Ledoit & Wolf 2004), because there can be fewer examples than features.

    Args:
        features: Features `[N, D]` of training examples.
        targets: Their classes `[N]`; classes without an example have no mean.
    """
    normalised = _normalised(features)
    center = normalised.mean(axis=0)
    classes, rows = np.unique(targets, return_inverse=True)
    means = np.stack([normalised[targets == k].mean(axis=0) for k in classes])
    covariance, _ = ledoit_wolf(normalised - means[rows], assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, values[-1] * np.finfo(np.float32).eps))
    return as_constants({"feature_center": center, "whitening": whitening, "class_means": (means - center) @ whitening})


def fit_knn(features: NDArray[np.float32], targets: NDArray[np.int64], *, seed: int = 0) -> Statistics:
    """Normalised features `[M, D]` of at most `MAX_REFERENCES` training examples, drawn from all classes alike.

    Args:
        features: Features `[N, D]` of training examples.
        targets: Their classes `[N]`.
        seed: The seed of the draw.
    """
    return as_constants({"reference_features": _normalised(features)[reference_rows(targets, seed)]})


_FITS: Mapping[str, Callable[[NDArray[np.float32], NDArray[np.int64]], Statistics]] = {
    "mahalanobis": fit_mahalanobis,
    "knn": fit_knn,
}


def fit_statistics(scores: Sequence[str], features: NDArray[np.float32], targets: NDArray[np.int64]) -> Statistics:
    """The constants that those of `scores` need that are computed from features.

    Args:
        scores: Names of scores; those of other outputs need no constants.
        features: Features `[N, D]` of training examples. Calibration examples must not be among them.
        targets: Their classes `[N]`.
    """
    constants: dict[ModelOutput, Tensor] = {}
    for name in scores:
        if name in _FITS:
            constants |= _FITS[name](features, targets)
    return constants


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write `statistics` to `path`, an `.npz` file."""
    arrays: dict[str, NDArray[np.float32]] = {name: tensor.numpy() for name, tensor in statistics.items()}
    np.savez(path, allow_pickle=False, **arrays)


def load_statistics(path: Path) -> Statistics:
    """The statistics in `path`; none if the file does not exist."""
    if not path.exists():
        return {}
    with np.load(path) as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _normalised(features: NDArray[np.float32]) -> NDArray[np.float64]:
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    result: NDArray[np.float64] = features / np.maximum(norms, 1e-12)
    return result


def reference_rows(targets: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """The rows of the examples that `fit_knn` draws, all or equally many of each class as far as it has as many.

    Args:
        targets: The classes `[N]` of the training examples.
        seed: The seed of the draw.
    """
    if len(targets) <= MAX_REFERENCES:
        return np.arange(len(targets), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(targets))
    # The position of each example among the examples of its class: the first of all classes come before the second.
    position = np.empty(len(targets), dtype=np.int64)
    for k in np.unique(targets):
        rows = order[targets[order] == k]
        position[rows] = np.arange(len(rows))
    return np.sort(order[np.argsort(position[order], kind="stable")][:MAX_REFERENCES]).astype(np.int64)


def as_constants(arrays: Mapping[ModelOutput, NDArray[np.float64]]) -> Statistics:
    """`arrays` as tensors in float32."""
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
