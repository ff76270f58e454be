"""Sources: opens a recipe's data set with Hugging Face `datasets` and selects and labels its rows."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.recipe import Source

_PART_SEED = 0
"""Independent of the recipe's seed: parts of one source must be disjoint across recipes, too."""

Progress = Callable[[str, int, int], None]
"""Called with the name of the set that is read, the rows done and the total."""


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True)
class DataLocations:
    """The folders of data and of decoded copies.

    Attributes:
        data_dir: The folder that relative paths of sources start from.
        cache_dir: The folder of decoded images.
        cache_bytes: Sets whose decoded images are larger are decoded on demand and not cached.
    """

    data_dir: Path = field(default_factory=lambda: Path(os.environ.get("OOD_DATA", "data")))
    cache_dir: Path = field(
        default_factory=lambda: Path(os.environ.get("OOD_CACHE", Path.home() / ".cache" / "ood-scoring-service"))
    )
    cache_bytes: int = field(default_factory=_half_of_memory)


@dataclass(frozen=True)
class Rows:
    """The selected rows of a source.

    Attributes:
        table: The rows.
        y: Class indices int64 `[N]`; None if the source is unlabelled.
        labels: The class names.
        origin: The path or hub name of the source.
    """

    table: datasets.Dataset
    y: NDArray[np.int64] | None
    labels: tuple[str, ...]
    origin: str

    def at(self, rows: NDArray[np.int64]) -> "Rows":
        """The subset at `rows`."""
        y = None if self.y is None else self.y[rows]
        return Rows(self.table.select(rows), y, self.labels, self.origin)


def read_rows(source: Source, data_dir: Path, column: str) -> Rows:
    """Open `source` and apply its `label`, `exclude_labels`, `part` and `limit`.

    Args:
        source: The data set.
        data_dir: The folder that relative paths start from.
        column: The column of inputs.

    Raises:
        DataError: The source cannot be read, has no such column, or no row is selected.
    """
    table, origin = _open(source, data_dir, column)
    y, labels = _labels(table, source)
    rows = _selected(y, labels, source, len(table))
    if not len(rows):
        raise DataError(origin, "holds nothing once exclude_labels and part are applied", "Check the source")
    if y is not None:
        y, labels = _compact(y[rows], labels, source)
    return Rows(table.select(rows) if len(rows) < len(table) else table, y, labels, origin)


def _open(source: Source, data_dir: Path, column: str) -> tuple[datasets.Dataset, str]:
    origin = source.path if source.format == "hub" else str(data_dir / source.path)
    files = [origin, *(str(data_dir / path) for path in source.also)]
    if source.format != "hub" and (missing := [file for file in files if not Path(file).exists()]):
        remedy = "Set the data directory with --data or OOD_DATA, or correct the recipe's path"
        raise DataError(missing[0], "does not exist", remedy)
    # Its progress bars count rows of an intermediate file.
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(**_request(source, files))
    except Exception as error:
        # The builders of `datasets` raise exceptions of many types.
        reason = f"cannot be read as {source.format}: {error}"
        raise DataError(origin, reason, "Check format, path and split") from error
    for required in (column, source.label):
        if required is not None and required not in table.column_names:
            remedy = f"Its columns are {', '.join(table.column_names)}"
            raise DataError(origin, f"has no column '{required}'", remedy)
    return table, origin


def _request(source: Source, files: list[str]) -> dict[str, Any]:
    """The arguments of `datasets.load_dataset`."""
    if source.format == "hub":
        return {"path": source.path, "split": source.split}
    if source.format != "imagefolder":
        return {"path": source.format, "data_files": files, "split": "train"}
    # By pattern, as one split: in a folder, `datasets` assigns files with names such as test_0.png to other splits.
    patterns = {"train": [str(Path(folder) / "**") for folder in files]}
    return {"path": "imagefolder", "data_files": patterns, "split": "train", "drop_labels": source.label is None}


def _labels(table: datasets.Dataset, source: Source) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """The class index of each row and the class names; None and no names if the source is unlabelled."""
    if source.label is None:
        return None, ()
    values = table[source.label][:]
    feature = table.features[source.label]
    if isinstance(feature, datasets.ClassLabel):
        y = np.asarray(values, dtype=np.int64)
        if len(unlabelled := np.flatnonzero(y < 0)):
            reason = f"{len(unlabelled)} rows have no label, the first is row {unlabelled[0]}"
            raise DataError(source.path, reason, "Label them or remove them")
        return y, tuple(feature.names)
    names = sorted({str(value) for value in values})
    index = {label: i for i, label in enumerate(names)}
    return np.asarray([index[str(value)] for value in values], dtype=np.int64), tuple(names)


def _selected(y: NDArray[np.int64] | None, labels: tuple[str, ...], source: Source, n: int) -> NDArray[np.int64]:
    """The rows that `exclude_labels`, `part` and `limit` leave of `n`, in ascending order."""
    rows = np.arange(n, dtype=np.int64)
    if source.exclude_labels:
        unknown = sorted(set(source.exclude_labels) - set(labels))
        if y is None or unknown:
            reason = f"exclude_labels names {', '.join(unknown) or 'labels, but no label column is given'}"
            raise DataError(source.path, f"{reason}, which the data does not have", "Correct exclude_labels or label")
        rows = rows[~np.isin(y, [labels.index(label) for label in source.exclude_labels])]
    if source.part is not None:
        start, stop = (round(share * len(rows)) for share in source.part)
        rows = np.sort(np.random.default_rng(_PART_SEED).permutation(rows)[start:stop])
    if source.limit is None or source.limit >= len(rows):
        return rows
    # Evenly spaced: the first rows of a file sorted by class would miss classes.
    return rows[np.linspace(0, len(rows) - 1, source.limit).astype(np.int64)]


def _compact(
    y: NDArray[np.int64], labels: tuple[str, ...], source: Source
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The class indices and names without the excluded classes."""
    kept = [i for i, label in enumerate(labels) if label not in source.exclude_labels]
    new_index = np.full(len(labels), -1, dtype=np.int64)
    new_index[kept] = np.arange(len(kept))
    return new_index[y], tuple(labels[i] for i in kept)
