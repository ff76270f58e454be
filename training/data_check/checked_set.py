"""A data set as the data check reads it: small images or texts, with the place of each input in its source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle import ImageInput
from datafiles import printable
from training.data import DataLocations, Problem, Progress, guess_source, load_images
from training.data.duplicates import text_hashes
from training.data.examples import InputArray
from training.data.image_loading import image_hashes
from training.data.labels import class_counts
from training.data.sources import Rows, read_rows
from training.data.text_loading import is_blank
from training.data_check.finding import Place
from training.errors import DataError

SIDE = 32
"""The height and width in pixels of the images that are compared: the input of the perceptual hash."""

_INPUT = ImageInput(height=SIDE, width=SIDE, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
_EXCERPT = 120
"""The length of the beginning of a text that stands for it."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns in tables; `label` None for the column `label`, if it exists."""

    image: str = "image"
    text: str = "text"
    label: str | None = None


@dataclass(frozen=True)
class CheckedSet:
    """The usable inputs of a data set.

    Attributes:
        name: The role of the set, for messages.
        rows: The usable rows: inputs, classes, and row numbers in the source.
        images: The images uint8 `[N, SIDE, SIDE, 3]`; None for texts.
        hashes: The content hash of each input; copies have equal hashes.
        problems: The rows that cannot be used.
        blank: The row numbers of texts without characters, which are left out like problems.
    """

    name: str
    rows: Rows
    images: InputArray | None
    hashes: list[bytes]
    problems: tuple[Problem, ...]
    blank: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, index: int) -> Place:
        """The place of the input at `index`."""
        row, encoded = int(self.rows.numbers[index]), self.rows.images
        if encoded is None:
            return Place(set=self.name, row=row, excerpt=" ".join(self.rows.texts[index][:_EXCERPT].split()))
        file = encoded.file(index)
        return Place(set=self.name, row=row, file=None if file is None else printable(file))

    def label(self, index: int) -> str | None:
        """The class of the input at `index`; None if the set is unlabelled."""
        return None if self.rows.y is None else self.rows.labels[int(self.rows.y[index])]

    def class_counts(self) -> dict[str, int] | None:
        """The number of inputs of each class; None if the set is unlabelled."""
        return None if self.rows.y is None else class_counts(self.rows.y, self.rows.labels)


def read_set(
    path: Path,
    name: str,
    *,
    is_text: bool,
    columns: Columns,
    is_labelled: bool,
    locations: DataLocations,
    progress: Progress | None = None,
) -> CheckedSet:
    """Read every input of the data set at `path`.

    Args:
        path: A folder of images or a table.
        name: The role of the set, for messages.
        is_text: Whether it holds texts.
        columns: The names of a table's columns.
        is_labelled: Whether its labels are read, if there are any.
        locations: The folder that the path starts from, and the cache of decoded images.
        progress: Called while images are decoded.

    Raises:
        DataError: The set cannot be read, or no input can be used.
    """
    label = columns.label if is_labelled else None
    source = guess_source(path, locations.data_dir, image=columns.image, text=columns.text, label=label)
    if not is_labelled:
        source = source.model_copy(update={"label": None})
    if is_text:
        rows = read_rows(source, locations.data_dir, "text")
        blank = [index for index, text in enumerate(rows.texts) if is_blank(text)]
        kept = _without(len(rows), blank)
        if not len(kept):
            raise DataError(rows.origin, "has no text that can be used", "Check the column of the texts")
        usable = rows.at(kept)
        return CheckedSet(
            name, usable, None, text_hashes(usable.texts), rows.problems, tuple(rows.numbers[blank].tolist())
        )
    examples = load_images(source, _INPUT, locations, name=name, progress=progress, skip_broken=True)
    rows = read_rows(source, locations.data_dir, "image")
    broken = np.flatnonzero(np.isin(rows.numbers, [problem.row for problem in examples.left_out]))
    usable = rows.at(_without(len(rows), broken.tolist()))
    return CheckedSet(name, usable, examples.x, image_hashes(examples.x), examples.left_out)


def _without(n: int, left_out: Sequence[int]) -> NDArray[np.int64]:
    return np.setdiff1d(np.arange(n, dtype=np.int64), np.asarray(left_out, dtype=np.int64))
