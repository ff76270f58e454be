"""AUROC of scores of a pretrained backbone's features, also of two that the service does not offer: ViM and fDBD.

The classifier is a logistic regression of the features. The validation set, the recipe's training outliers, decides
whether a score is worth offering; no classifier is trained with these outliers here.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from benchmarks.results import report
from bundle import SCORES, ImageInput
from training.backbones import load_backbone, with_features
from training.data import DataLocations, Examples, ImageReader, load_in_distribution
from training.evaluation import detection_metrics
from training.models.feature_statistics import fit_statistics
from training.recipe import Source, load_recipe

Features = NDArray[np.float64]
Scorer = Callable[[Features], Features]
"""From features `[N, D]` to anomalies `[N]`."""


def measure(recipe_path: Path, data: Path) -> None:
    """Measure the scores on the training outliers and the first test set of a recipe with a backbone."""
    recipe = load_recipe(recipe_path)
    assert recipe.backbone is not None, "the recipe has a backbone"
    assert isinstance(recipe.input, ImageInput), "backbones read images"
    assert recipe.outliers is not None, "the recipe has outliers"
    locations = DataLocations(data_dir=data)
    reader = ImageReader(recipe.input, locations)
    backbone = load_backbone(data / recipe.backbone.backbone, recipe.input, recipe.backbone.features)

    def features(examples: Examples) -> Features:
        stored = with_features(examples, backbone, locations.cache_dir / "features").x
        return np.asarray(stored[np.arange(len(examples), dtype=np.int64)][:, 0], dtype=np.float64)

    in_dist = load_in_distribution(recipe, reader)
    train, test = features(in_dist.train), features(in_dist.test)
    unseen = next(source for source in recipe.evaluation.ood.values() if isinstance(source, Source))
    assert isinstance(recipe.outliers.train, Source), "the training outliers are a data set"
    sets = {
        "validation": features(reader.load(recipe.outliers.train, name="validation")),
        "test": features(reader.load(unseen, name="test")),
    }
    scorers = _scorers(train, in_dist.train.targets())
    report(
        "feature-scores",
        {
            score: {
                f"auroc_{name}_percent": round(100 * detection_metrics(scorer(test), scorer(values)).auroc, 2)
                for name, values in sets.items()
            }
            for score, scorer in scorers.items()
        },
        ("numpy", "onnxruntime", "scikit-learn"),
    )


def _scorers(train: Features, targets: NDArray[np.int64]) -> dict[str, Scorer]:
    classifier = LogisticRegression(max_iter=1000).fit(train, targets)
    weights, bias = classifier.coef_, classifier.intercept_

    def offered(name: str) -> Scorer:
        statistics = fit_statistics([name], train.astype(np.float32), targets)

        def score(values: Features) -> Features:
            outputs = {"features": torch.from_numpy(values.astype(np.float32)), **statistics}
            outputs["logits"] = torch.from_numpy(values @ weights.T + bias)
            return np.asarray(SCORES[name].anomaly(SCORES[name].compute(outputs).numpy()))

        return score

    return {
        **{name: offered(name) for name in ("msp", "energy", "mahalanobis", "knn")},
        "vim": _vim(train, weights, bias),
        "fdbd": _fdbd(train, weights, bias),
    }


def _vim(train: Features, weights: Features, bias: Features) -> Scorer:
    """Virtual-logit Matching (Wang et al. 2022): the norm of the residual, scaled as the largest logit, plus energy.

    The paper's principal space has 512 dimensions for so many features. It has at most half as many as there are
    training examples, because all of them lie in a space with one dimension less than examples.
    """
    origin = -np.linalg.pinv(weights) @ bias
    _, vectors = np.linalg.eigh(np.cov((train - origin).T, bias=True))
    residual = vectors[:, : train.shape[1] - min(512, len(train) // 2)]
    norms = np.linalg.norm((train - origin) @ residual, axis=1)
    alpha = (train @ weights.T + bias).max(axis=1).mean() / norms.mean()

    def score(values: Features) -> Features:
        virtual = alpha * np.linalg.norm((values - origin) @ residual, axis=1)
        return np.asarray(virtual - logsumexp(values @ weights.T + bias, axis=1))

    return score


def _fdbd(train: Features, weights: Features, bias: Features) -> Scorer:
    """Fast Decision Boundary Detector (Liu & Qin 2024): the mean distance to other classes' decision boundaries.

    The distances are divided by the distance from the mean of the training features.
    """
    mean = train.mean(axis=0)
    between = np.linalg.norm(weights[:, None] - weights[None], axis=2)

    def score(values: Features) -> Features:
        logits = values @ weights.T + bias
        predicted = logits.argmax(axis=1)
        gaps = logits.max(axis=1, keepdims=True) - logits
        others = np.arange(len(weights)) != predicted[:, None]
        distances = np.divide(gaps, between[predicted], out=np.zeros_like(gaps), where=others)
        mean_distance = distances.sum(axis=1) / (len(weights) - 1)
        return np.asarray(-mean_distance / np.linalg.norm(values - mean, axis=1))

    return score
