"""Examples: a labelled set of inputs of one kind, in memory or decoded on demand."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError


class InputArray(Protocol):
    """What training needs of a store of inputs: its shape and rows by index.

    Images are uint8 `[N, H, W, C]`; texts are token ids int32 `[N, T]`, T the longest that the model takes, filled up
    with `NO_TOKEN`.
    """

    @property
    def in_memory(self) -> bool:
        """Whether rows are plain reads; else each read decodes."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, ...)`."""
        ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        """The inputs `[len(rows), ...]`."""
        ...


@dataclass(frozen=True)
class Examples:
    """A data set: inputs `x`, class indices `y` `[N]` or None, and where it came from.

    `sha256` is taken over inputs and labels; for a set that is decoded on demand, over its source's identity; for a
    subset, over its whole's and the rows.
    """

    x: InputArray
    y: NDArray[np.int64] | None
    labels: tuple[str, ...]
    name: str
    source: str
    sha256: str

    def __len__(self) -> int:
        return self.x.shape[0]

    def rows(self, rows: NDArray[np.int64], name: str | None = None) -> "Examples":
        """The subset at `rows` (a view: nothing is copied until it is read)."""
        y = None if self.y is None else self.y[rows]
        sha256 = hashlib.sha256(bytes.fromhex(self.sha256) + rows.astype("<i8").tobytes()).hexdigest()
        return replace(self, x=_Rows(self.x, rows), y=y, name=name or self.name, sha256=sha256)

    def targets(self) -> NDArray[np.int64]:
        """The class indices `[N]`; DataError when the set is unlabelled."""
        if self.y is None:
            raise DataError(self.source, "has no labels", "Name its label column in the recipe (`label: ...`)")
        return self.y

    def require_classes(self) -> None:
        """DataError unless a classifier can learn from the set: labels, two classes or more, none of them empty."""
        counts = np.bincount(self.targets(), minlength=len(self.labels))
        if len(self.labels) < 2:
            raise DataError(self.source, f"has {len(self.labels)} class", "A classifier needs at least two")
        empty = [label for label, count in zip(self.labels, counts, strict=True) if count == 0]
        if empty:
            reason = f"no {self.name} example has the label {', '.join(empty)}"
            raise DataError(self.source, reason, "Add some or drop the label")


@dataclass(frozen=True)
class StoredArray:
    """Inputs in an array, memory-mapped or not."""

    array: NDArray[Any]
    in_memory: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, ...)`."""
        return self.array.shape

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        return self.array[rows]


@dataclass(frozen=True)
class _Rows:
    """Some rows of an array, by reference."""

    base: InputArray
    chosen: NDArray[np.int64]

    @property
    def in_memory(self) -> bool:
        return self.base.in_memory

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.chosen), *self.base.shape[1:])

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        return self.base[self.chosen[rows]]
