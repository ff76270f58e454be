"""Findings on inputs that cannot be read, and on blank ones."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datafiles import printable
from training.data import Examples, InputArray
from training.data_check.checked_set import CheckedSet
from training.data_check.finding import Example, Finding, Place, first_examples

_BLOCK_BYTES = 2**24
_IMAGE_AXES = 4
_BLANK_IMAGES_REMEDY = "Remove them, or find out why they are empty: they show no class"
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


def blank_images(images: InputArray) -> NDArray[np.bool_]:
    """Whether each of the `images` uint8 `[N, H, W, C]` has nearly one colour, `[N]`."""
    n = images.shape[0]
    blank = np.zeros(n, dtype=bool)
    block = max(_BLOCK_BYTES // math.prod(images.shape[1:]), 1)
    for start in range(0, n, block):
        rows = np.arange(start, min(start + block, n), dtype=np.int64)
        deviation = images[rows].astype(np.float32).std(axis=(1, 2))
        blank[rows] = deviation.max(axis=1) < _BLANK_DEVIATION
    return blank


def blank_images_findings(sets: Sequence[Examples]) -> list[Finding]:
    """The findings on images of nearly one colour among training data in memory; none on texts."""
    images = [examples for examples in sets if len(examples.x.shape) == _IMAGE_AXES and examples.x.in_memory]
    counts = {examples.name: int(blank_images(examples.x).sum()) for examples in images}
    remedy = f"{_BLANK_IMAGES_REMEDY}. `check` lists them"
    return [_blank_finding(name, count, "images", remedy) for name, count in counts.items() if count]


def blank_finding(checked: CheckedSet, is_blank: NDArray[np.bool_]) -> Finding | None:
    """The finding on images of nearly one colour, or on texts without characters."""
    places = [Place(set=checked.name, row=row) for row in checked.blank]
    places += [checked.place(index) for index in np.flatnonzero(is_blank).tolist()]
    if not places:
        return None
    kind, remedy = (
        ("texts", "`run` leaves them out; remove them, or find out why they are empty")
        if checked.images is None
        else ("images", _BLANK_IMAGES_REMEDY)
    )
    finding = _blank_finding(checked.name, len(places), kind, remedy)
    return finding.model_copy(
        update={"examples": first_examples(Example(places=(place,)) for place in places)},
    )


def _blank_finding(name: str, count: int, kind: str, remedy: str) -> Finding:
    return Finding(
        check="blank inputs",
        severity="warning",
        count=count,
        message=f"{count:,} {kind} of {name} are blank",
        remedy=remedy,
    )
