"""Assembly: everything a recipe's run reads, loaded, split and checked for overlap."""

from dataclasses import dataclass

import numpy as np

from training.data.images import Images
from training.data.loading import DataLocations, Progress, load_images
from training.data.overlap import find_overlap
from training.data.splits import hold_out
from training.errors import DataError, OverlapError
from training.recipe import Recipe


@dataclass(frozen=True)
class TrainingData:
    """In-distribution images to train on and to calibrate with (disjoint), and the outliers, overlap removed."""

    train: Images
    calibration: Images
    outliers: Images | None
    overlap_removed: int


def load_training_data(recipe: Recipe, locations: DataLocations, progress: Progress | None = None) -> TrainingData:
    """Load and check what the recipe trains on.

    Raises DataError for unreadable or unlabelled data and OverlapError when outliers repeat in-distribution images
    (the calibration split included) and the recipe does not ask for their removal.
    """
    whole = load_images(
        recipe.in_distribution.train, recipe.input, locations, name="in-distribution", progress=progress
    )
    whole.classes()
    train, calibration = hold_out(whole, recipe.in_distribution.calibration_size, recipe.seed)
    if recipe.outliers is None:
        return TrainingData(train, calibration, None, 0)
    outliers = load_images(recipe.outliers.train, recipe.input, locations, name="outliers", progress=progress)
    overlap = find_overlap(
        whole, outliers, None if progress is None else lambda done, total: progress("overlap check", done, total)
    ).rows
    if len(overlap) == len(outliers):
        raise OverlapError(outliers.source, "every outlier is an in-distribution image", "Name other outliers")
    if len(overlap):
        if recipe.outliers.duplicates == "refuse":
            reason = f"{len(overlap)} outliers are (nearly) in-distribution images, first rows {overlap[:5].tolist()}"
            raise OverlapError(outliers.source, reason, "Remove them, or let the run do it: outliers.duplicates=remove")
        outliers = outliers.rows(np.setdiff1d(np.arange(len(outliers)), overlap))
    return TrainingData(train, calibration, outliers, len(overlap))


def load_test_images(
    recipe: Recipe, labels: tuple[str, ...], locations: DataLocations, progress: Progress | None = None
) -> Images:
    """The in-distribution test set; DataError unless its classes are `labels`, in that order."""
    test = load_images(recipe.in_distribution.test, recipe.input, locations, name="test", progress=progress)
    test.classes()
    if test.labels != labels:
        difference = ", ".join(sorted(set(labels) ^ set(test.labels))) or "their order"
        raise DataError(test.source, f"its labels differ from the training set's ({difference})", "Use matching sets")
    return test
