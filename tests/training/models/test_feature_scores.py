"""The scores of features equal scipy's and scikit-learn's distances, and detect what the logits do not show."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bundle import FEATURE_SCORES, SCORES, ImageInput
from tests.training.support.reference_scores import reference_feature_scores
from training.errors import RecipeError
from training.models.classifier import ImageClassifier, Mirrored
from training.models.feature_statistics import MAX_REFERENCES, fit_knn, fit_statistics
from training.models.features import predict_with_features
from training.models.score_heads import ClassifierHead, ScoredClassifier

CLASSES, SIZE = 3, 12


def features(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of three classes around different means, with norms that tell nothing, and their classes."""
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % CLASSES
    means = 3 * np.random.default_rng(9).normal(size=(CLASSES, SIZE))
    values = means[targets] + generator.normal(size=(n, SIZE)) @ np.diag(np.linspace(0.2, 2, SIZE))
    return (values * generator.uniform(0.5, 4, (n, 1))).astype(np.float32), targets


def computed(name: str, train: NDArray[np.float32], targets: NDArray[np.int64], x: NDArray[np.float32]) -> torch.Tensor:
    statistics = fit_statistics([name], train, targets)
    return SCORES[name].compute({"features": torch.from_numpy(x), **statistics})


@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_scores_of_features_equal_the_distances_that_scipy_and_scikit_learn_give(name: str) -> None:
    (train, targets), (x, _) = features(300), features(40, seed=1)
    expected = reference_feature_scores(train, targets, x)[name]
    np.testing.assert_allclose(computed(name, train, targets, x), expected, rtol=1e-3, atol=1e-6)


def test_mahalanobis_needs_no_more_examples_than_features() -> None:
    generator = np.random.default_rng(0)
    train, targets = generator.normal(size=(20, 200)).astype(np.float32), np.arange(20) % 2
    values = computed("mahalanobis", train, targets, train)
    assert torch.isfinite(values).all()


@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_a_class_without_an_example_does_not_change_the_scores_of_the_other_classes(name: str) -> None:
    (train, targets), (x, _) = features(300), features(40, seed=1)
    renumbered = targets + (targets > 0)
    torch.testing.assert_close(computed(name, train, renumbered, x), computed(name, train, targets, x))


def test_knn_of_a_large_set_keeps_equally_many_references_of_each_class_as_far_as_there_are_any() -> None:
    targets = np.repeat([0, 1, 2], [9000, 9000, 100])
    train = np.eye(CLASSES, dtype=np.float32)[targets]
    reference = fit_knn(train, targets)["reference_features"].numpy()
    counts = np.bincount(reference.argmax(axis=1))
    assert counts.sum() == MAX_REFERENCES
    assert counts[2] == 100
    assert abs(counts[0] - counts[1]) <= 1


@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_the_norm_of_the_features_has_no_influence(name: str) -> None:
    (train, targets), (x, _) = features(300), features(40, seed=1)
    torch.testing.assert_close(
        computed(name, train, targets, x), computed(name, 7 * train, targets, 0.01 * x), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", FEATURE_SCORES)
def test_features_in_a_new_direction_are_more_anomalous(name: str) -> None:
    (train, targets), (x, _) = features(300), features(40, seed=1)
    foreign = np.random.default_rng(5).normal(size=x.shape).astype(np.float32)
    assert computed(name, train, targets, foreign).median() > computed(name, train, targets, x).max()


SPEC = ImageInput(height=4, width=4, channels=1, mean=(0.5,), std=(0.25,))


def classifier() -> ImageClassifier:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, SIZE), torch.nn.ReLU(), torch.nn.Linear(SIZE, 3)
    )
    return ImageClassifier(network, SPEC).eval()


IMAGES = torch.randint(0, 256, (6, 4, 4, 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_the_features_are_the_input_of_the_last_linear_layer() -> None:
    model = classifier()
    prediction = predict_with_features(model, (IMAGES,))
    hidden = model.network[2](model.network[1](model.network[0](model.normalise(IMAGES))))
    torch.testing.assert_close(prediction.features, hidden)
    torch.testing.assert_close(model.network[3](hidden), prediction.logits)


def test_the_features_of_an_image_and_its_mirror_image_are_averaged() -> None:
    model = classifier()
    both = [predict_with_features(model, (images,)).features for images in (IMAGES, IMAGES.flip(2))]
    mirrored = predict_with_features(Mirrored(model), (IMAGES,)).features
    torch.testing.assert_close(mirrored, (both[0] + both[1]) / 2)


def test_a_network_without_a_linear_layer_has_no_features() -> None:
    with pytest.raises(RecipeError, match="no linear layer"):
        predict_with_features(ImageClassifier(torch.nn.Flatten(), SPEC), (IMAGES,))


def test_a_score_of_features_is_refused_without_statistics() -> None:
    with pytest.raises(RecipeError, match="knn cannot be computed"):
        ClassifierHead(("msp", "knn"))


def test_a_scored_classifier_computes_scores_of_features_beside_those_of_logits() -> None:
    model = classifier()
    train = predict_with_features(model, (IMAGES,)).features.detach().numpy()
    statistics = fit_statistics(("mahalanobis", "knn"), train, np.arange(6) % 3)
    scored = ScoredClassifier(model, ("msp", "mahalanobis", "knn"), statistics)
    outputs = dict(zip(scored.output_names, scored(IMAGES), strict=True))
    for name in FEATURE_SCORES:
        expected = SCORES[name].compute({"features": torch.from_numpy(train), **statistics})
        torch.testing.assert_close(outputs[name], expected)
