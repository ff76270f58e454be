"""Assembly: loads, splits and checks the data sets of a recipe."""

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
    """The training, calibration and test splits; those of a classifier are labelled.

    `sample` locates the first test example in its source.
    """

    train: Examples
    calibration: Examples
    test: Examples
    sample: Sample


def load_in_distribution(recipe: Recipe, reader: Reader, progress: Progress | None = None) -> InDistributionData:
    """Load and split the in-distribution data.

    Raises:
        DataError: The data cannot be read, a classifier's are unlabelled, or the test set has other classes.
    """
    config = recipe.in_distribution
    full = reader.load(config.train, name="in-distribution", progress=progress)
    is_classifier = recipe.task == "classification"
    if is_classifier:
        full.require_classes()
    rows = split_in_distribution(len(full), config, recipe.seed, full.source)
    train = full.rows(rows.train, f"{full.name} train")
    calibration = full.rows(rows.calibration, f"{full.name} calibration")
    if config.test is None:
        test = full.rows(rows.test, f"{full.name} test")
        return InDistributionData(train, calibration, test, Sample(config.train, int(rows.test[0])))
    test = reader.load(config.test, name="in-distribution test", progress=progress)
    if is_classifier:
        test.targets()
    if is_classifier and test.labels != full.labels:
        difference = ", ".join(sorted(set(full.labels) ^ set(test.labels))) or "their order"
        raise DataError(test.source, f"its labels differ from the training set's ({difference})", "Use matching sets")
    return InDistributionData(train, calibration, test, Sample(config.test))


def load_set(
    config: Source | Synthetic,
    reader: Reader,
    in_dist: Examples,
    *,
    name: str,
    seed: int,
    progress: Progress | None = None,
) -> Examples:
    """Load a data set, or generate a synthetic one with the shape of the in-distribution examples `in_dist`."""
    if isinstance(config, Synthetic):
        return synthesise(config, in_dist, name=name, seed=seed)
    return reader.load(config, name=name, progress=progress)


def without_overlap(
    outliers: Examples,
    in_dist: InDistributionData,
    reader: Reader,
    config: Outliers,
    progress: Progress | None = None,
) -> Examples:
    """The outliers that are not (nearly) duplicates of an example of any in-distribution split.

    Raises:
        OverlapError: There are duplicates and `config` does not ask to remove them, or no outlier remains.
    """
    overlaps = [
        reader.overlap(split, outliers, f"overlap with {split.name}", progress)
        for split in (in_dist.train, in_dist.calibration, in_dist.test)
    ]
    duplicates = np.unique(np.concatenate([overlap.rows for overlap in overlaps]))
    if not len(duplicates):
        return outliers
    if len(duplicates) == len(outliers):
        raise OverlapError(outliers.source, "every outlier is an in-distribution example", "Name other outliers")
    if config.duplicates == "refuse":
        n, first = len(duplicates), duplicates[:5].tolist()
        reason = f"{n} outliers are (nearly) in-distribution examples, first rows {first}"
        raise OverlapError(outliers.source, reason, "Remove them, or let the run do it: outliers.duplicates=remove")
    return outliers.rows(np.setdiff1d(np.arange(len(outliers)), duplicates))
