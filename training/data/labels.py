"""Labels: turns the cells of a label column into class names, and finds the rows without one."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datafiles import Fault, Value, as_text

_WHOLE_FLOAT = re.compile(r"[-+]?\d+\.0+")


@dataclass(frozen=True)
class Labels:
    """The classes of a source's rows.

    Attributes:
        y: class indices int64 `[N]`, -1 where there is none.
        names: the class names.
        faults: the reasons of the rows without a class, by row.
    """

    y: NDArray[np.int64]
    names: tuple[str, ...]
    faults: dict[int, str]


def read_labels(values: Sequence[Value], class_names: Sequence[str] | None) -> Labels:
    """The classes in the cells of a label column.

    Every text is a class name, also `null`, `NA` and `nan`. A cell has no label if it is empty, a null of JSON or
    parquet, or a number that is NaN. Spaces around a name are ignored. Whole numbers are written without decimals:
    pandas stores integers with missing values as 1.0.

    Args:
        values: the cells.
        class_names: the names of class numbers; None if the cells are the names, which are then sorted.
    """
    faults: dict[int, str] = {}
    if class_names is not None:
        numbers = [_number(value, len(class_names)) for value in values]
        faults = {row: "there is no label" for row, number in enumerate(numbers) if number < 0}
        return Labels(np.asarray(numbers, dtype=np.int64), tuple(class_names), faults)
    found = [_name(value) for value in values]
    texts = [name for name in found if isinstance(name, str)]
    whole = bool(texts) and all(_WHOLE_FLOAT.fullmatch(name) for name in texts)
    if whole:
        found = [name.partition(".")[0] if isinstance(name, str) else name for name in found]
    names = tuple(sorted({name for name in found if isinstance(name, str)}))
    index = {name: number for number, name in enumerate(names)}
    y = np.full(len(found), -1, dtype=np.int64)
    for row, name in enumerate(found):
        if isinstance(name, str):
            y[row] = index[name]
        else:
            faults[row] = name.detail
    return Labels(y, names, faults)


def folder_labels(folders: Sequence[str | None]) -> Labels:
    """The classes of images by the sub-folders that they are in; None is an image in no sub-folder."""
    names = tuple(sorted({folder for folder in folders if folder is not None}))
    index = {name: number for number, name in enumerate(names)}
    y = np.asarray([-1 if folder is None else index[folder] for folder in folders], dtype=np.int64)
    faults = {row: "it is in no class's folder" for row, folder in enumerate(folders) if folder is None}
    return Labels(y, names, faults)


def class_counts(y: NDArray[np.int64], names: Sequence[str]) -> dict[str, int]:
    """The number of inputs of each class, from their class indices `[N]`."""
    return dict(zip(names, np.bincount(y, minlength=len(names)).tolist(), strict=True))


def _number(value: Value, classes: int) -> int:
    return int(value) if isinstance(value, int) and 0 <= value < classes else -1


def _name(value: Value) -> str | Fault:
    if isinstance(value, str | bytes):
        text = as_text(value)
        if isinstance(text, Fault):
            return Fault(text.kind, f"its label is unreadable: {text.detail.rstrip('.')}")
        return text.strip() or _NO_LABEL
    if isinstance(value, Fault):
        return _NO_LABEL if value.kind == "missing" else Fault(value.kind, value.detail.rstrip("."))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _NO_LABEL
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or _NO_LABEL


_NO_LABEL = Fault("missing", "there is no label")
