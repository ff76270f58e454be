"""A data set of the Hugging Face hub as a table."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from datafiles.parquet_table import values
from datafiles.table import Row, require_columns

_ROWS = 32


class HubTable:
    """The rows of a downloaded data set, with images as their files."""

    def __init__(self, name: str, data: datasets.Dataset) -> None:
        images = [column for column, feature in data.features.items() if isinstance(feature, datasets.Image)]
        for column in images:
            data = data.cast_column(column, datasets.Image(decode=False))
        self.path = Path(name)
        self._data = data

    @property
    def files(self) -> Sequence[Path]:
        """The files of the cache."""
        return [Path(file["filename"]) for file in self._data.cache_files]

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns."""
        return list(self._data.column_names)

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """The names of the classes of columns that hold class numbers."""
        features: Mapping[str, Any] = self._data.features
        return {name: feature.names for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}

    def count(self) -> int:
        """The number of rows."""
        return len(self._data)

    def require(self, columns: Sequence[str]) -> None:
        """Raise DataFileError unless the table has each of `columns`."""
        require_columns(self, columns)

    def holds_all_bytes(self, column: str) -> bool:  # noqa: ARG002
        """True: downloaded images are in the cache's files."""
        return True

    def read(self, columns: Sequence[str], start: int = 0) -> Iterator[Row]:
        """Yield the values of `columns` in each row from number `start` on."""
        self.require(columns)
        table = self._data.with_format("arrow")
        for first in range(start, len(table), _ROWS):
            rows = table[first : first + _ROWS]
            yield from zip(*(_values(rows.column(name)) for name in columns), strict=True)


def _values(column: Any) -> list[Any]:
    return [value for chunk in column.chunks for value in values(chunk)]
