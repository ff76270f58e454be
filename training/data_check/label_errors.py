"""Likely label errors, by confident learning (Northcutt, Jiang & Chuang 2021) with a cheap classifier."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

FOLDS = 5
"""The number of parts of the cross-validation. A class with fewer examples cannot be judged."""

_COMPONENTS = 100
_INVERSE_PENALTY, _ITERATIONS = 0.1, 100
_WORD_HASHES = 2**15


@dataclass(frozen=True)
class LabelErrors:
    """The labels that differ from confident predictions of a cross-validated classifier.

    Attributes:
        rows: The rows with likely errors int64 `[E]`, the most certain first.
        suggested: The class that the classifier predicts, for each of them.
        accuracy: The share of all rows that the classifier predicts right, in 0..1.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    accuracy: float


def image_features(x: NDArray[Any]) -> NDArray[np.float32]:
    """The principal components float32 `[N, D']` of the pixels or features `[N, D]` of images."""
    x = StandardScaler().fit_transform(x.astype(np.float32))
    return _scaled(PCA(min(_COMPONENTS, *x.shape), random_state=0).fit_transform(x))


def text_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """The principal directions float32 `[N, D']` of the texts' words and word pairs, weighted by TF-IDF (LSA)."""
    words = HashingVectorizer(n_features=_WORD_HASHES, ngram_range=(1, 2), alternate_sign=False, norm=None)
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(words.transform(texts).astype(np.float32))
    return _scaled(TruncatedSVD(min(_COMPONENTS, *weights.shape), random_state=0).fit_transform(weights))


def likely_label_errors(
    features: NDArray[np.float32], y: NDArray[np.int64], progress: Callable[[int, int], None] | None = None
) -> LabelErrors:
    """Find labels that differ from a class that the classifier is confident of.

    The probabilities of each row are those of a linear classifier that is fitted to the other four fifths.

    Args:
        features: The features of the inputs `[N, D]`.
        y: Class indices 0..K-1 int64 `[N]`; each class has at least `FOLDS` rows.
        progress: Called with the number of folds done and their total.
    """
    k, classifier = int(y.max()) + 1, LogisticRegression(C=_INVERSE_PENALTY, max_iter=_ITERATIONS)
    probabilities = np.zeros((len(y), k))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for fold, (train, test) in enumerate(folds.split(np.zeros(len(y)), y)):
        with warnings.catch_warnings():
            # Probabilities that are not fully converged serve as well.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(features[train], y[train])
        probabilities[test] = classifier.predict_proba(features[test])
        if progress is not None:
            progress(fold + 1, FOLDS)
    return confident_learning(probabilities, y)


def confident_learning(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> LabelErrors:
    """The rows off the diagonal of the confident joint (equations 1 and 2 of the paper).

    A row counts as class j if its probability of j is at least the mean probability of j over the rows labelled j, and
    is the largest such probability. It is a likely error if j is not its label.

    Args:
        probabilities: Out-of-sample probabilities `[N, K]`.
        y: The labels int64 `[N]`, each class at least once.
    """
    n, k = probabilities.shape
    thresholds = np.bincount(y, weights=probabilities[np.arange(n), y], minlength=k) / np.bincount(y, minlength=k)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = confident.argmax(axis=1)
    rows = np.flatnonzero((confident.max(axis=1) >= 0) & (counted != y))
    margins = probabilities[rows, y[rows]] - probabilities[rows, counted[rows]]
    rows = rows[np.argsort(margins, kind="stable")]
    accuracy = float((probabilities.argmax(axis=1) == y).mean())
    return LabelErrors(rows.astype(np.int64), counted[rows].astype(np.int64), accuracy)


def _scaled(features: NDArray[Any]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (features / max(float(features.std()), 1e-12)).astype(np.float32)
    return scaled
