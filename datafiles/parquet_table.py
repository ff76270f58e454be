"""Parquet files: one file, or several with the same columns as one table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datafiles.errors import DataFileError, Fault
from datafiles.table import Row, Value, require_columns

# Rows read at once: few where each may be an encoded photograph of several megabytes.
_ROWS, _ROWS_OF_BYTES = 2048, 32
_READ_BUFFER = 2**20


class ParquetTable:
    """The rows of `files` in order."""

    def __init__(self, path: Path, files: Sequence[Path], schemas: Sequence[pa.Schema], rows: int) -> None:
        self.path = path
        self.files = tuple(files)
        self._schemas = tuple(schemas)
        self._rows = rows

    @classmethod
    def open(cls, path: Path, files: Sequence[Path] = ()) -> "ParquetTable":
        """Read the schemas and count the rows.

        Args:
            path: the file or folder that the user named.
            files: the files of a folder; without, the file at `path`.

        Raises:
            DataFileError: A file cannot be read.
        """
        rows, schemas = 0, []
        for file in files or [path]:
            with _opened(file) as parquet:
                rows += parquet.metadata.num_rows
                schemas.append(parquet.schema_arrow)
        return cls(path, files or [path], schemas, rows)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the first file."""
        return self._schemas[0]

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns."""
        return [str(name) for name in self.schema.names]

    @cached_property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """The class names that Hugging Face `datasets` wrote into the file's metadata."""
        metadata = (self.schema.metadata or {}).get(b"huggingface")
        try:
            features = {} if metadata is None else json.loads(metadata)["info"]["features"]
            return {
                name: [str(label) for label in feature["names"]]
                for name, feature in features.items()
                if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def count(self) -> int:
        """The number of rows."""
        return self._rows

    def require(self, columns: Sequence[str]) -> None:
        """Raise DataFileError unless every file has each of `columns`, once and of one type."""
        require_columns(self, columns)
        for file, schema in zip(self.files, self._schemas, strict=True):
            for name in columns:
                if name not in schema.names:
                    raise DataFileError(file, f"has no column '{name}', which {self.files[0].name} has", _ONE_SCHEMA)
                if schema.field(name).type != self.schema.field(name).type:
                    types = f"{schema.field(name).type}, in {self.files[0].name} {self.schema.field(name).type}"
                    raise DataFileError(file, f"has a column '{name}' of {types}", _ONE_SCHEMA)

    def holds_all_bytes(self, column: str) -> bool:
        """Whether the files' statistics prove that every row of an image column has bytes and names no file."""
        return all(_nulls(file, column) == 0 for file in self.files)

    def read(self, columns: Sequence[str], start: int = 0) -> Iterator[Row]:
        """Yield the values of `columns` in each row from number `start` on; earlier row groups are not read."""
        self.require(columns)
        size = _ROWS_OF_BYTES if any(has_bytes(self.schema.field(name).type) for name in columns) else _ROWS
        number = 0
        for file in self.files:
            with _opened(file) as parquet:
                groups = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
                first = 0
                while first < len(groups) and number + groups[first] <= start:
                    number += groups[first]
                    first += 1
                if first == len(groups):
                    continue
                batches = parquet.iter_batches(
                    size, row_groups=list(range(first, len(groups))), columns=list(dict.fromkeys(columns))
                )
                for batch in _read(file, batches):
                    rows = batch.slice(min(max(start - number, 0), len(batch)))
                    yield from zip(*(values(rows.column(name)) for name in columns), strict=True)
                    number += len(batch)


_ONE_SCHEMA = "Write the files with one schema, or use them one by one"


def values(column: Any) -> list[Value]:
    """The values of an array. Strings that are not UTF-8 become faults; pyarrow would fail on the whole array."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if not is_string(kind):
        return list(column.to_pylist())
    to_bytes = pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()
    if pa.types.is_string_view(kind):
        to_bytes = pa.binary_view()
    return [None if value is None else decoded(value) for value in column.cast(to_bytes).to_pylist()]


def decoded(value: bytes) -> str | Fault:
    """The text in UTF-8 bytes, or the fault that names the wrong byte."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        where = f"byte {value[error.start]:#04x} at position {error.start}"
        return Fault("encoding", f"The text is not UTF-8: {where}. Write the column again with UTF-8 strings.")


def is_string(kind: Any) -> bool:
    """Whether a type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: Any) -> bool:
    """Whether a type holds bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def plain_type(kind: Any) -> Any:
    """The type of the values, also of a dictionary-encoded column."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def has_bytes(kind: Any) -> bool:
    """Whether a type holds bytes, or is a struct with some: Hugging Face's images are `{bytes, path}`."""
    kind = plain_type(kind)
    if pa.types.is_struct(kind):
        return any(is_bytes(kind.field(index).type) for index in range(kind.num_fields))
    return is_bytes(kind)


def _nulls(file: Path, column: str) -> int | None:
    """The number of rows whose bytes are null; None if the file does not say."""
    nulls = 0
    with _opened(file) as parquet:
        paths = (column, f"{column}.bytes")
        leaves = [index for index in range(len(parquet.schema)) if parquet.schema.column(index).path in paths]
        if len(leaves) != 1:
            return None
        for group in range(parquet.num_row_groups):
            statistics = parquet.metadata.row_group(group).column(leaves[0]).statistics
            if statistics is None or not statistics.has_null_count:
                return None
            nulls += statistics.null_count
    return nulls


def _opened(file: Path) -> Any:
    try:
        # Without read-ahead: a column of a row group may be gigabytes.
        return pq.ParquetFile(file, buffer_size=_READ_BUFFER, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def _read(file: Path, batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DataFileError:
    return DataFileError(file, f"cannot be read as parquet: {error}", "Give an intact parquet file")
