"""Sources: the rows of a data set that Hugging Face `datasets` reads, chosen and labelled as a recipe says."""

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
"""Always the same, whatever a recipe's seed: parts of one source in two recipes must be disjoint too."""

Progress = Callable[[str, int, int], None]
"""Called with (what is read, rows done, rows in all)."""


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True)
class DataLocations:
    """Where data is read from and decoded copies are kept; a set larger than `cache_bytes` is decoded on demand."""

    data_dir: Path = field(default_factory=lambda: Path(os.environ.get("OOD_DATA", "data")))
    cache_dir: Path = field(
        default_factory=lambda: Path(os.environ.get("OOD_CACHE", Path.home() / ".cache" / "ood-scoring-service"))
    )
    cache_bytes: int = field(default_factory=_half_of_memory)


@dataclass(frozen=True)
class Rows:
    """The chosen rows of a source: `table`, class indices `y` `[N]` or None, class names, and the source's place."""

    table: datasets.Dataset
    y: NDArray[np.int64] | None
    labels: tuple[str, ...]
    origin: str

    def at(self, rows: NDArray[np.int64]) -> "Rows":
        """The subset at `rows`."""
        y = None if self.y is None else self.y[rows]
        return Rows(self.table.select(rows), y, self.labels, self.origin)


def read_rows(source: Source, data_dir: Path, column: str) -> Rows:
    """Open `source` in `data_dir` and apply its label column, `exclude_labels`, `part` and `limit`.

    Raises DataError when it cannot be read or lacks `column`, or when nothing is left.
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
    files = [origin, *(str(data_dir / more) for more in source.also)]
    if source.format != "hub" and (missing := [file for file in files if not Path(file).exists()]):
        remedy = "Set the data directory with --data or OOD_DATA, or correct the recipe's path"
        raise DataError(missing[0], "does not exist", remedy)
    # Its bars count rows of an intermediate file; ours count what is decoded.
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(**_request(source, files))
    except Exception as error:
        # `datasets` raises whatever its builders raise.
        reason = f"cannot be read as {source.format}: {error}"
        raise DataError(origin, reason, "Check format, path and split") from error
    for wanted in (column, source.label):
        if wanted is not None and wanted not in table.column_names:
            remedy = f"Its columns are {', '.join(table.column_names)}"
            raise DataError(origin, f"has no column '{wanted}'", remedy)
    return table, origin


def _request(source: Source, files: list[str]) -> dict[str, Any]:
    """The arguments of `load_dataset`."""
    if source.format == "hub":
        return {"path": source.path, "split": source.split}
    if source.format != "imagefolder":
        return {"path": source.format, "data_files": files, "split": "train"}
    # Files by pattern, all of one split: given a folder, `datasets` takes names such as test_0.png for other splits.
    found = {"train": [str(Path(folder) / "**") for folder in files]}
    return {"path": "imagefolder", "data_files": found, "split": "train", "drop_labels": source.label is None}


def _labels(table: datasets.Dataset, source: Source) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
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
    # Spread over the set: files sorted by class would lose whole classes at either end.
    return rows[np.linspace(0, len(rows) - 1, source.limit).astype(np.int64)]


def _compact(
    y: NDArray[np.int64], labels: tuple[str, ...], source: Source
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Renumber the classes without the excluded ones."""
    kept = [i for i, label in enumerate(labels) if label not in source.exclude_labels]
    renumbered = np.full(len(labels), -1, dtype=np.int64)
    renumbered[kept] = np.arange(len(kept))
    return renumbered[y], tuple(labels[i] for i in kept)
