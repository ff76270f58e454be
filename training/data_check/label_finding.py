"""The finding on labels that differ from confident predictions of a simple classifier."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.data_check.checked_set import SIDE, CheckedSet
from training.data_check.finding import Example, Finding, first_examples
from training.data_check.label_errors import FOLDS, image_features, likely_label_errors, text_features

_MAX_ROWS = 20_000
"""At most this many evenly spaced rows are judged."""
_MIN_ACCURACY = 0.6
"""The predictions of a less accurate classifier are no evidence about labels."""
_CELL = 2
"""Images are judged by averages over squares of this many pixels."""

Features = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Computes the features float32 `[N, D]` of the rows of a set."""


def label_finding(
    checked: CheckedSet,
    features: Features | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Finding | None:
    """The finding on likely label errors; None if there is none, or the set has no two classes to judge.

    Copies count once, and classes with fewer examples than the folds of the cross-validation are not judged.

    Args:
        checked: The labelled set.
        features: Better features of images than their pixels.
        progress: Called with the number of folds done and their total.
    """
    y = checked.rows.y
    if y is None:
        return None
    _, first = np.unique(np.asarray(checked.hashes, dtype="S16"), return_index=True)
    rows = np.sort(first)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MAX_ROWS)).astype(np.int64)]
    rows = rows[np.bincount(y[rows], minlength=len(checked.rows.labels))[y[rows]] >= FOLDS]
    classes, targets = np.unique(y[rows], return_inverse=True)
    if len(classes) < 2:
        return None
    found = likely_label_errors(_features(checked, rows, features), targets.astype(np.int64), progress)
    judge = f"a simple classifier of {_inputs(checked, features)} that is right on {found.accuracy:.0%} of the inputs"
    if found.accuracy < _MIN_ACCURACY:
        return Finding(
            check="label errors",
            severity="info",
            count=0,
            message=f"labels of {checked.name} are not judged: {judge} is too weak",
            remedy="Judge images by a pretrained model's features: --backbone"
            if checked.images is not None
            else "Look at a sample",
        )
    if not len(found.rows):
        return None
    names = [checked.rows.labels[number] for number in classes.tolist()]
    examples = (
        Example(
            places=(checked.place(int(rows[index])),),
            note=f"labelled {names[int(targets[index])]}, looks like {names[suggested]}",
        )
        for index, suggested in zip(found.rows.tolist(), found.suggested.tolist(), strict=True)
    )
    return Finding(
        check="label errors",
        severity="info",
        count=len(found.rows),
        message=f"{judge} finds {len(found.rows):,} of {len(rows):,} labels unlikely; the least likely come first",
        remedy="Look at the first ones and correct the labels that are wrong; many of the others are right",
        examples=first_examples(examples),
    )


def _features(checked: CheckedSet, rows: NDArray[np.int64], features: Features | None) -> NDArray[np.float32]:
    if checked.images is None:
        return text_features([checked.rows.texts[row] for row in rows.tolist()])
    if features is not None:
        return image_features(features(rows))
    side = SIDE // _CELL
    cells = checked.images[rows].reshape(len(rows), side, _CELL, side, _CELL, -1)
    return image_features(cells.mean(axis=(2, 4), dtype=np.float32).reshape(len(rows), -1))


def _inputs(checked: CheckedSet, features: Features | None) -> str:
    if checked.images is None:
        return "words"
    return "pixels" if features is None else "the backbone's features"
