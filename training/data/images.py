"""Images: a labelled set of equally sized uint8 images, in memory or decoded on demand."""

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError


class ImageArray(Protocol):
    """What training needs of an image store: its shape `[N, H, W, C]` and rows by index."""

    @property
    def in_memory(self) -> bool:
        """Whether rows are plain reads; else each read decodes."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, H, W, C)`."""
        ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        """The images `[len(rows), H, W, C]`."""
        ...


@dataclass(frozen=True)
class Images:
    """A data set: `x` uint8 `[N, H, W, C]`, `y` class indices `[N]` or None, and where it came from.

    `sha256` is taken over pixels and labels; for a set that is decoded on demand, over its source's identity; for a
    subset, over its whole's and the rows.
    """

    x: ImageArray
    y: NDArray[np.int64] | None
    labels: tuple[str, ...]
    name: str
    source: str
    sha256: str

    def __len__(self) -> int:
        return self.x.shape[0]

    def rows(self, rows: NDArray[np.int64], name: str | None = None) -> "Images":
        """The subset at `rows` (a view: nothing is copied until it is read)."""
        y = None if self.y is None else self.y[rows]
        sha256 = hashlib.sha256(bytes.fromhex(self.sha256) + rows.astype("<i8").tobytes()).hexdigest()
        return replace(self, x=_Rows(self.x, rows), y=y, name=name or self.name, sha256=sha256)

    def classes(self) -> NDArray[np.int64]:
        """The class indices `[N]`; DataError when the set is unlabelled or cannot be classified."""
        if self.y is None:
            raise DataError(self.source, "has no labels", "Name its label column in the recipe (`label: ...`)")
        if len(self.labels) < 2:
            raise DataError(self.source, f"has {len(self.labels)} class", "A classifier needs at least two")
        counts = np.bincount(self.y, minlength=len(self.labels))
        empty = [label for label, count in zip(self.labels, counts, strict=True) if count == 0]
        if empty:
            raise DataError(self.source, f"no image has the label {', '.join(empty)}", "Add some or drop the label")
        return self.y


@dataclass(frozen=True)
class StoredImages:
    """Images in an array, memory-mapped or not."""

    array: NDArray[np.uint8]
    in_memory: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, H, W, C)`."""
        return self.array.shape

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        return self.array[rows]


@dataclass(frozen=True)
class _Rows:
    """Some rows of an image array, by reference."""

    base: ImageArray
    chosen: NDArray[np.int64]

    @property
    def in_memory(self) -> bool:
        return self.base.in_memory

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.chosen), *self.base.shape[1:])

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        return self.base[self.chosen[rows]]
