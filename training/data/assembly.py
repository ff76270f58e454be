"""Assembly: the sets that a recipe's run reads, loaded, split and checked for overlap."""

from dataclasses import dataclass

import numpy as np

from training.data.examples import Examples
from training.data.reader import Reader
from training.data.sources import Progress
from training.data.splits import split_in_distribution
from training.data.synthetic import synthesise
from training.errors import DataError, OverlapError
from training.recipe import Outliers, Recipe, Source, Synthetic


@dataclass(frozen=True)
class Sample:
    """One row of a source."""

    source: Source
    row: int = 0


@dataclass(frozen=True)
class InDistributionData:
    """The examples that a model is for, a classifier's labelled: splits to train on, to calibrate with, and to test on.

    `sample` is where the test set's first example is found.
    """

    train: Examples
    calibration: Examples
    test: Examples
    sample: Sample


def load_in_distribution(recipe: Recipe, reader: Reader, progress: Progress | None = None) -> InDistributionData:
    """Load and split; DataError for unreadable or unlabelled data, or a test set of other classes."""
    plan = recipe.in_distribution
    whole = reader.load(plan.train, name="in-distribution", progress=progress)
    labelled = recipe.task == "classification"
    if labelled:
        whole.require_classes()
    rows = split_in_distribution(len(whole), plan, recipe.seed, whole.source)
    train = whole.rows(rows.train, f"{whole.name} train")
    calibration = whole.rows(rows.calibration, f"{whole.name} calibration")
    if plan.test is None:
        test = whole.rows(rows.test, f"{whole.name} test")
        return InDistributionData(train, calibration, test, Sample(plan.train, int(rows.test[0])))
    test = reader.load(plan.test, name="in-distribution test", progress=progress)
    if labelled:
        test.targets()
    if labelled and test.labels != whole.labels:
        difference = ", ".join(sorted(set(whole.labels) ^ set(test.labels))) or "their order"
        raise DataError(test.source, f"its labels differ from the training set's ({difference})", "Use matching sets")
    return InDistributionData(train, calibration, test, Sample(plan.test))


def load_set(
    plan: Source | Synthetic, reader: Reader, like: Examples, *, name: str, seed: int, progress: Progress | None = None
) -> Examples:
    """A data set as it is, or a synthetic one in the shape of the in-distribution examples `like`."""
    if isinstance(plan, Synthetic):
        return synthesise(plan, like, name=name, seed=seed)
    return reader.load(plan, name=name, progress=progress)


def without_overlap(
    outliers: Examples, inside: InDistributionData, reader: Reader, plan: Outliers, progress: Progress | None = None
) -> Examples:
    """The outliers that are not (nearly) in-distribution examples, those of the calibration and test sets included.

    Raises OverlapError when there are such and `plan` does not ask for their removal, or when nothing would be left.
    """
    found = [
        reader.overlap(examples, outliers, f"overlap with {examples.name}", progress)
        for examples in (inside.train, inside.calibration, inside.test)
    ]
    overlap = np.unique(np.concatenate([each.rows for each in found]))
    if not len(overlap):
        return outliers
    if len(overlap) == len(outliers):
        raise OverlapError(outliers.source, "every outlier is an in-distribution example", "Name other outliers")
    if plan.duplicates == "refuse":
        reason = f"{len(overlap)} outliers are (nearly) in-distribution examples, first rows {overlap[:5].tolist()}"
        raise OverlapError(outliers.source, reason, "Remove them, or let the run do it: outliers.duplicates=remove")
    return outliers.rows(np.setdiff1d(np.arange(len(outliers)), overlap))
