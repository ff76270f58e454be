"""The features of a classifier for a whole set of inputs, and the statistics of a stage's training features."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bundle import FEATURE_SCORES, MAX_SOURCE_CHARS, Reference, save_references
from training.data import Examples, InputArray
from training.models.classifier import Classifier
from training.models.feature_statistics import (
    MAX_EXAMPLES,
    Statistics,
    fit_statistics,
    load_statistics,
    reference_rows,
    save_statistics,
)
from training.models.features import predict_with_features
from training.run import Run
from training.scoring.batch_scoring import restore_order, row_batches, scoring_order

_BATCH = 256


@torch.inference_mode()
def classifier_features(
    classifier: Classifier, inputs: InputArray, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float32]:
    """The features float32 `[N, D]` of stored `inputs` `[N, ...]`; the classifier is set to evaluation mode."""
    classifier = classifier.eval()
    order, n = scoring_order(inputs), inputs.shape[0]
    parts = []
    for done, rows in row_batches(order, _BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(inputs[rows]))
        features = predict_with_features(classifier, classifier.prepare(batch)).features
        assert features is not None, "predict_with_features returns features"
        parts.append(features.float().numpy())
        if progress is not None:
            progress(done, n)
    return restore_order(np.concatenate(parts), order)


def save_stage_statistics(
    run: Run, stage: str, classifier: Classifier, train: Examples, progress: Callable[[int, int], None] | None = None
) -> None:
    """Compute the statistics that the recipe's scores need and write them to the run directory.

    Args:
        run: The run directory.
        stage: The stage's name.
        classifier: The stage's classifier.
        train: The training split: no calibration example may be among the examples.
        progress: Called with the number of examples done and their total.
    """
    if not set(run.recipe.export.scores) & set(FEATURE_SCORES):
        return
    examples = train.evenly_spaced(MAX_EXAMPLES)
    features = classifier_features(classifier, examples.x, progress)
    run.calibration_path.mkdir(exist_ok=True)
    statistics = fit_statistics(run.recipe.export.scores, features, examples.targets())
    save_statistics(run.statistics_path(stage), statistics)
    run.references_path(stage).unlink(missing_ok=True)
    if run.recipe.export.neighbours and "reference_features" in statistics:
        save_references(run.references_path(stage), references_of(examples))


def references_of(examples: Examples) -> list[Reference]:
    """The training `examples` that the score `knn` compares inputs with."""
    targets, origins = examples.targets(), examples.origins
    assert origins is not None, "the examples were read from a source"
    return [
        Reference(label=examples.labels[targets[row]], source=origins.name(row)[-MAX_SOURCE_CHARS:])
        for row in reference_rows(targets).tolist()
    ]


def load_stage_statistics(run: Run, stage: str) -> Statistics:
    """The saved statistics of `stage`; none if its scores need none."""
    return load_statistics(run.statistics_path(stage))
