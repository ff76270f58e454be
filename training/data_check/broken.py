"""Findings on inputs that cannot be read, and on blank ones."""

import numpy as np
from numpy.typing import NDArray

from datafiles import printable
from training.data_check.checked_set import CheckedSet
from training.data_check.finding import Example, Finding, Place, first_examples

_BLOCK = 2048
_BLANK_DEVIATION = 2.0
"""The standard deviation of the pixels, of 255, below which an image is blank."""


def broken_finding(checked: CheckedSet) -> Finding | None:
    """The finding on the inputs that `run` refuses: files that cannot be decoded, rows without text or label."""
    if not checked.problems:
        return None
    count = len(checked.problems)
    examples = (
        Example(
            places=(
                Place(
                    set=checked.name,
                    row=problem.row,
                    file=None if problem.file is None else printable(problem.file),
                ),
            ),
            note=problem.reason,
        )
        for problem in checked.problems
    )
    return Finding(
        check="broken inputs",
        severity="error",
        count=count,
        message=f"{count:,} inputs of {checked.name} cannot be used",
        remedy="Repair or remove them, or leave them out: --skip-broken",
        examples=first_examples(examples),
    )


def blank_images(checked: CheckedSet) -> NDArray[np.bool_]:
    """Whether each input is an image of nearly one colour, `[N]`; no text is."""
    images = checked.images
    blank = np.zeros(len(checked), dtype=bool)
    if images is None:
        return blank
    for start in range(0, len(checked), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(checked)), dtype=np.int64)
        deviation = images[rows].astype(np.float32).std(axis=(1, 2))
        blank[rows] = deviation.max(axis=1) < _BLANK_DEVIATION
    return blank


def blank_finding(checked: CheckedSet, is_blank: NDArray[np.bool_]) -> Finding | None:
    """The finding on images of nearly one colour, or on texts without characters."""
    places = [Place(set=checked.name, row=row) for row in checked.blank]
    places += [checked.place(index) for index in np.flatnonzero(is_blank).tolist()]
    if not places:
        return None
    kind, remedy = (
        ("texts", "`run` leaves them out; remove them, or find out why they are empty")
        if checked.images is None
        else ("images", "Remove them, or find out why they are empty: they show no class")
    )
    return Finding(
        check="blank inputs",
        severity="warning",
        count=len(places),
        message=f"{len(places):,} {kind} of {checked.name} are blank",
        remedy=remedy,
        examples=first_examples(Example(places=(place,)) for place in places),
    )
