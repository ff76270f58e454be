"""Examples: a data set of one kind of input, in memory or decoded on demand."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.data.labels import class_counts
from training.data.origins import Origins
from training.data.problems import BrokenInputs, Problem
from training.errors import DataError


class InputArray(Protocol):
    """Stored inputs with a shape, read by row numbers.

    Images are uint8 `[N, H, W, C]`. Texts are token ids int32 `[N, T]`, where T is the model's maximum length; shorter
    texts are filled with `NO_TOKEN`.
    """

    @property
    def in_memory(self) -> bool:
        """Whether reading rows is a plain copy; otherwise each read decodes them."""
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
    """A data set: inputs, class indices and origin.

    Attributes:
        x: The inputs.
        y: Class indices int64 `[N]`; None if the set is unlabelled.
        labels: The class names.
        name: The set's role, for messages and reports.
        source: The path or name that the set was read from.
        sha256: A hash of inputs and labels. For a set that is decoded on demand, a hash of the hashes of its inputs,
            and labels. For a subset, a hash of the whole set's hash and the row numbers.
        left_out: The source's inputs that cannot be used and are left out; none for a subset.
        origins: Where each example comes from; None if that is not known.
    """

    x: InputArray
    y: NDArray[np.int64] | None
    labels: tuple[str, ...]
    name: str
    source: str
    sha256: str
    left_out: tuple[Problem, ...] = ()
    origins: Origins | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def usable(self, problems: Sequence[Problem], *, skip_broken: bool) -> "Examples":
        """The examples with the `problems` of the source's other inputs.

        Raises:
            BrokenInputs: There are problems, and `skip_broken` is off.
            DataError: No example remains.
        """
        if problems and not skip_broken:
            raise BrokenInputs(problems)
        if not len(self):
            raise DataError(self.source, "holds no input that can be used", "Check the source")
        return replace(self, left_out=tuple(problems))

    def rows(self, rows: NDArray[np.int64], name: str | None = None) -> "Examples":
        """The subset at `rows`: a view that copies no input until it is read."""
        y = None if self.y is None else self.y[rows]
        sha256 = hashlib.sha256(bytes.fromhex(self.sha256) + rows.astype("<i8").tobytes()).hexdigest()
        origins = None if self.origins is None else self.origins.at(rows)
        x = _Rows(self.x, rows)
        return replace(self, x=x, y=y, name=name or self.name, sha256=sha256, left_out=(), origins=origins)

    def evenly_spaced(self, size: int) -> "Examples":
        """Up to `size` examples, evenly spaced over the set: all of them if there are no more."""
        if len(self) <= size:
            return self
        return self.rows(np.linspace(0, len(self) - 1, size, dtype=np.int64))

    def targets(self) -> NDArray[np.int64]:
        """The class indices `[N]`; DataError if the set is unlabelled."""
        if self.y is None:
            raise DataError(self.source, "has no labels", "Name its label column in the recipe (`label: ...`)")
        return self.y

    def class_counts(self) -> dict[str, int]:
        """The number of examples of each class; DataError if the set is unlabelled."""
        return class_counts(self.targets(), self.labels)

    def require_classes(self) -> None:
        """Raise DataError unless the set has labels and at least two classes, none of them empty."""
        counts = self.class_counts()
        if len(self.labels) < 2:
            raise DataError(self.source, f"has {len(self.labels)} class", "A classifier needs at least two")
        empty = [label for label, count in counts.items() if count == 0]
        if empty:
            reason = f"no {self.name} example has the label {', '.join(empty)}"
            raise DataError(self.source, reason, "Add some, or leave the label out: exclude_labels")


@dataclass(frozen=True)
class StoredArray:
    """Inputs in a NumPy array, which may be memory-mapped."""

    array: NDArray[Any]
    in_memory: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, ...)`."""
        return self.array.shape

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        return self.array[rows]


def select(x: InputArray, rows: NDArray[np.int64]) -> InputArray:
    """The inputs at `rows`: a view that copies none until it is read."""
    at = getattr(x, "at", None)
    return _Rows(x, rows) if at is None else at(rows)


@dataclass(frozen=True)
class _Rows:
    """The rows `selected` of another array, by reference."""

    base: InputArray
    selected: NDArray[np.int64]

    @property
    def in_memory(self) -> bool:
        return self.base.in_memory

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.selected), *self.base.shape[1:])

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        return self.base[self.selected[rows]]
