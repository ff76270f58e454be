"""Assembly: loads, splits and checks the data sets of a recipe."""

from dataclasses import dataclass, replace

import numpy as np

from bundle import ImageInput
from training.data.duplicates import conflicting_labels, separate_duplicates
from training.data.examples import Examples
from training.data.reader import Reader
from training.data.sources import Progress
from training.data.splits import require_test_size, split_in_distribution
from training.data.synthetic import synthesise
from training.errors import DataError, OverlapError
from training.recipe import Outliers, Recipe, Source, Synthetic, TextConfig


@dataclass(frozen=True)
class Sample:
    """One row of a source."""

    source: Source
    row: int = 0


@dataclass(frozen=True)
class RemovedDuplicates:
    """The numbers of examples that were left out because another split has a copy.

    Attributes:
        train: Training examples that repeat a calibration or test example.
        test: Test examples that repeat a calibration example.
    """

    train: int = 0
    test: int = 0

    @property
    def total(self) -> int:
        """The number of examples left out."""
        return self.train + self.test

    def __str__(self) -> str:
        return (
            f"{self.train:,} training examples that repeat a held-out example and {self.test:,} test examples that "
            "repeat a calibration example are left out"
        )


@dataclass(frozen=True)
class InDistributionData:
    """The training, calibration and test splits; those of a classifier are labelled.

    No two splits have the same input. `duplicates` counts the examples left out for this reason, `conflicting` the
    inputs of the train source that have copies with different labels. `sample` locates the first test example in its
    source.
    """

    train: Examples
    calibration: Examples
    test: Examples
    sample: Sample
    duplicates: RemovedDuplicates = RemovedDuplicates()
    conflicting: int = 0

    @property
    def splits(self) -> list[Examples]:
        """The splits."""
        return [self.train, self.calibration, self.test]


def load_in_distribution(recipe: Recipe, reader: Reader, progress: Progress | None = None) -> InDistributionData:
    """Load and split the in-distribution data, and leave out copies of an example in other splits.

    Raises:
        DataError: The data cannot be read, a classifier's are unlabelled, the test set has other classes, or too
            few test examples, or no training example of a class, remain without the copies.
    """
    config = recipe.in_distribution
    full = reader.load(config.train, name="in-distribution", progress=progress)
    is_classifier = recipe.task == "classification"
    if is_classifier:
        full.require_classes()
    rows = split_in_distribution(len(full), config, recipe.seed, full.source)
    if config.test is None:
        test_source, test = config.train, full.rows(rows.test, f"{full.name} test")
    else:
        test_source, test = config.test, reader.load(config.test, name="in-distribution test", progress=progress)
        if is_classifier:
            test.targets()
        if is_classifier and test.labels != full.labels:
            difference = ", ".join(sorted(set(full.labels) ^ set(test.labels))) or "their order"
            reason = f"its labels differ from the training set's ({difference})"
            raise DataError(test.source, reason, "Use matching sets")
    test_hashes = None if config.test is None else reader.content_hashes(config.test, test)
    hashes = reader.content_hashes(config.train, full)
    separated = separate_duplicates(rows, hashes, test_hashes)
    duplicates = RemovedDuplicates(len(rows.train) - len(separated.train), len(test) - len(separated.test))
    if not len(separated.train):
        reason = "every training example is a copy of a held-out example"
        raise DataError(full.source, reason, "Remove the copies")
    if not len(separated.test):
        raise DataError(test.source, "every test example is a copy of a calibration example", "Remove the copies")
    require_test_size(len(separated.test), test.source)
    train = replace(full.rows(separated.train, f"{full.name} train"), left_out=full.left_out)
    if is_classifier:
        # The held-out splits may hold all examples of a class.
        train.require_classes()
    first_test_row = int((rows.test[separated.test] if config.test is None else separated.test)[0])
    return InDistributionData(
        train=train,
        calibration=full.rows(rows.calibration, f"{full.name} calibration"),
        # A complete test set keeps its hash.
        test=test.rows(separated.test) if duplicates.test else test,
        sample=Sample(test_source, first_test_row),
        duplicates=duplicates,
        conflicting=0 if full.y is None else conflicting_labels(hashes, full.y),
    )


def load_set(
    config: Source | Synthetic,
    reader: Reader,
    in_dist: Examples,
    *,
    name: str,
    seed: int,
    spec: ImageInput | TextConfig | None = None,
    progress: Progress | None = None,
) -> Examples:
    """Load a data set, or generate a synthetic one.

    Args:
        config: The set.
        reader: The reader of data sets.
        in_dist: The images that give a synthetic set its shape and that it distorts if it is a distortion.
        name: The set's name.
        seed: The seed of a synthetic set.
        spec: The network's input, which a synthetic set in normalised values needs.
        progress: Called while the set is read.
    """
    if isinstance(config, Synthetic):
        return synthesise(config, in_dist, name=name, seed=seed, spec=spec if isinstance(spec, ImageInput) else None)
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
