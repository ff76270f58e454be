"""Assembly: the sets that a recipe's run reads, loaded, split and checked for overlap."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.data.images import Images
from training.data.loading import DataLocations, Progress, load_images
from training.data.overlap import find_overlap
from training.data.splits import hold_out
from training.errors import DataError, OverlapError
from training.recipe import Outliers, Recipe


@dataclass(frozen=True)
class InDistributionData:
    """The labelled images that a model is for: disjoint splits to train on and to calibrate with, and the test set."""

    train: Images
    calibration: Images
    test: Images


def load_in_distribution(
    recipe: Recipe, locations: DataLocations, progress: Progress | None = None
) -> InDistributionData:
    """Load and split; DataError for unreadable or unlabelled data, or a test set of other classes."""
    plan = recipe.in_distribution
    whole = load_images(plan.train, recipe.input, locations, name="in-distribution", progress=progress)
    whole.classes()
    train, calibration = hold_out(whole, plan.calibration_size, recipe.seed)
    test = load_images(plan.test, recipe.input, locations, name="in-distribution test", progress=progress)
    test.classes()
    if test.labels != whole.labels:
        difference = ", ".join(sorted(set(whole.labels) ^ set(test.labels))) or "their order"
        raise DataError(test.source, f"its labels differ from the training set's ({difference})", "Use matching sets")
    return InDistributionData(train, calibration, test)


def load_outliers(recipe: Recipe, locations: DataLocations, progress: Progress | None = None) -> Images | None:
    """The auxiliary outliers as they are, or None where the recipe has none."""
    if recipe.outliers is None:
        return None
    return load_images(recipe.outliers.train, recipe.input, locations, name="outliers", progress=progress)


def without_overlap(
    outliers: Images, inside: InDistributionData, plan: Outliers, progress: Progress | None = None
) -> Images:
    """The outliers that are not (nearly) in-distribution images, those of the calibration and test sets included.

    Raises OverlapError when there are such and `plan` does not ask for their removal, or when nothing would be left.
    """
    found = [
        find_overlap(images, outliers, None if progress is None else _named(progress, f"overlap with {images.name}"))
        for images in (inside.train, inside.calibration, inside.test)
    ]
    overlap = np.unique(np.concatenate([each.rows for each in found]))
    if not len(overlap):
        return outliers
    if len(overlap) == len(outliers):
        raise OverlapError(outliers.source, "every outlier is an in-distribution image", "Name other outliers")
    if plan.duplicates == "refuse":
        reason = f"{len(overlap)} outliers are (nearly) in-distribution images, first rows {overlap[:5].tolist()}"
        raise OverlapError(outliers.source, reason, "Remove them, or let the run do it: outliers.duplicates=remove")
    return outliers.rows(np.setdiff1d(np.arange(len(outliers)), overlap))


def _named(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
