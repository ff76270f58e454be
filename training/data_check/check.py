"""The data check: reads data sets once and runs every check on them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training.data import DataLocations, Progress
from training.data.source_guess import holds_texts, train_and_test_folders
from training.data_check.backbone_features import backbone_features
from training.data_check.broken import blank_finding, blank_images, broken_finding
from training.data_check.checked_set import CheckedSet, Columns, read_set
from training.data_check.class_sizes import (
    calibration_size_findings,
    outlier_size_finding,
    split_sizes,
    training_size_findings,
)
from training.data_check.duplicates import copy_findings, near_duplicate_findings
from training.data_check.finding import Finding
from training.data_check.label_finding import label_finding
from training.data_check.report import DataCheck, SetSummary
from training.data_check.shortcut_finding import shortcut_findings
from training.errors import DataError

IN_DISTRIBUTION, TEST, OUTLIERS = "in-distribution", "test", "outliers"
"""The names of the sets."""

_ORDER = ("error", "warning", "info")


@dataclass(frozen=True)
class CheckOptions:
    """The data to check, and the options of the checks.

    Attributes:
        data: The in-distribution data, or a folder of images with a training and a test split.
        test: A test set of its own; None if there is none.
        outliers: The outliers; None if there are none.
        columns: The names of the columns of tables.
        alpha: The false-flag rate to calibrate for.
        backbone: The ONNX model whose features of images the labels are judged by; None for their pixels.
    """

    data: Path
    test: Path | None = None
    outliers: Path | None = None
    columns: Columns = field(default_factory=Columns)
    alpha: float = 0.01
    backbone: Path | None = None


@dataclass(frozen=True)
class CheckedData:
    """The result of a check, and the sets that its findings are about."""

    report: DataCheck
    sets: tuple[CheckedSet, ...]


def check_data(options: CheckOptions, locations: DataLocations, progress: Progress) -> CheckedData:
    """Run every check.

    Args:
        options: The data.
        locations: The folder that the paths start from, and the cache of decoded images.
        progress: Called while data are read and compared.

    Raises:
        DataError: A set cannot be read, holds no usable input, or holds another kind of input than the others.
        GraphError: The backbone cannot be used.
    """
    columns = options.columns
    data, test = _splits(options)
    paths = {IN_DISTRIBUTION: data, TEST: test, OUTLIERS: options.outliers}
    given = {name: path for name, path in paths.items() if path is not None}
    is_text = {name: holds_texts(path, image=columns.image, text=columns.text) for name, path in given.items()}
    for name, path in given.items():
        if is_text[name] != is_text[IN_DISTRIBUTION]:
            kind, other = ("texts", "images") if is_text[name] else ("images", "texts")
            raise DataError(str(path), f"holds {kind}, {options.data} holds {other}", "Give sets of the same kind")
    sets = tuple(
        read_set(
            path,
            name,
            is_text=is_text[name],
            columns=columns,
            is_labelled=name != OUTLIERS,
            locations=locations,
            progress=progress,
        )
        for name, path in given.items()
    )
    findings = sorted(_findings(options, sets, progress), key=lambda finding: _ORDER.index(finding.severity))
    report = DataCheck(sets=tuple(SetSummary.of(checked) for checked in sets), findings=tuple(findings))
    return CheckedData(report, sets)


def _splits(options: CheckOptions) -> tuple[Path, Path | None]:
    """The in-distribution data and the test set: those of the options, or the splits in the folder of data."""
    splits = train_and_test_folders(options.data, options.columns.label)
    if splits is None:
        return options.data, options.test
    if options.test is not None:
        raise DataError("--test", f"is given, but {splits[1]} is a test set, too", f"Give {splits[0]} as the data")
    return splits


def _findings(options: CheckOptions, sets: tuple[CheckedSet, ...], progress: Progress) -> Iterator[Finding]:
    in_dist, others = sets[0], {checked.name: checked for checked in sets[1:]}
    blank = [
        np.zeros(len(checked), dtype=bool) if checked.images is None else blank_images(checked.images)
        for checked in sets
    ]
    for checked, is_blank in zip(sets, blank, strict=True):
        yield from _present(broken_finding(checked), blank_finding(checked, is_blank))
    yield from _size_findings(options, in_dist)
    if OUTLIERS in others:
        yield from _present(outlier_size_finding(len(others[OUTLIERS])))
    yield from copy_findings(sets)
    yield from near_duplicate_findings(sets, blank, lambda done, n: progress("near duplicates", done, n))
    features = None
    if options.backbone is not None:
        features = backbone_features(options.backbone, in_dist, lambda done, n: progress("features", done, n))
    yield from _present(label_finding(in_dist, features, lambda done, n: progress("label errors", done, n)))
    if OUTLIERS in others:
        yield from shortcut_findings(in_dist, others[OUTLIERS])


def _size_findings(options: CheckOptions, in_dist: CheckedSet) -> Iterator[Finding]:
    counts = in_dist.class_counts()
    if counts is None:
        yield Finding(
            check="labels",
            severity="warning",
            count=len(in_dist),
            message=f"{in_dist.name} has no labels, so classes and labels are not checked",
            remedy="Put all images into one sub-folder per class, or give a table a column label (--label-column)",
        )
        return
    yield from training_size_findings(counts)
    n = len(in_dist)
    share = split_sizes(n).calibration / n
    expected = {label: round(share * count) for label, count in counts.items()}
    yield from calibration_size_findings(expected, options.alpha)


def _present(*findings: Finding | None) -> list[Finding]:
    return [finding for finding in findings if finding is not None]
