"""The scores of classifiers, computed by SciPy and scikit-learn in float64: the reference for torch and ONNX graphs."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize


def reference_scores(logits: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """The value `[N]` of each score of `bundle.LOGIT_SCORES`, by name, of `logits` `[N, K]`."""
    values = logits.astype(np.float64)
    probability = softmax(values, axis=1)
    # The authors' generalized_entropy with its defaults, gamma = 0.1 and M = 100.
    top = np.sort(probability, axis=1)[:, -100:]
    return {
        "msp": probability.max(axis=1),
        "max_logit": values.max(axis=1),
        "energy": -logsumexp(values, axis=1),
        "entropy": entropy(probability, axis=1),
        "kl_uniform": -np.log(probability).mean(axis=1),
        "gen": np.sum(top**0.1 * (1 - top) ** 0.1, axis=1),
    }


def reference_feature_scores(
    train: NDArray[np.floating], targets: NDArray[np.int64], features: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """`mahalanobis` and `knn` `[N]` of `features` `[N, D]`, by SciPy and scikit-learn from training features."""
    unit_train, unit = (normalize(values.astype(np.float64)) for values in (train, features))
    means = np.stack([unit_train[targets == k].mean(axis=0) for k in range(int(targets.max()) + 1)])
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(unit_train - means[targets]).covariance_)
    distances, _ = NearestNeighbors(n_neighbors=5).fit(unit_train).kneighbors(unit)
    return {
        "mahalanobis": cdist(unit, means, "mahalanobis", VI=inverse).min(axis=1) ** 2 / train.shape[1],
        "knn": distances[:, -1] ** 2,
    }
