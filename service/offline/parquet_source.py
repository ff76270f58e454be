"""Parquet files with a column of images or texts; the files of a folder are one collection."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.inputs.payloads import Text
from service.offline.errors import SourceUnusable, unreadable_source
from service.offline.source import Identity, Item, fingerprint, missing_value

# Rows read at once: few, because each may be an encoded photograph of several megabytes.
_ROWS = 32
_READ_BUFFER = 2**20


@dataclass(frozen=True)
class ParquetSource:
    """The rows of `files` in order; keys are those of the column `key`, or row numbers across all files."""

    files: tuple[Path, ...]
    modality: Literal["image", "text"]
    identity: Identity
    key_type: pa.DataType

    @classmethod
    def open(
        cls, path: Path, files: Sequence[Path], modality: Literal["image", "text"], column: str | None, key: str | None
    ) -> Self:
        """Read the schemas and count the rows.

        Args:
            path: The file or folder that the user named.
            files: The parquet files.
            modality: The modality of the model.
            column: The column of the inputs; None to guess it.
            key: The column of the keys; None for row numbers.

        Raises:
            SourceUnusable: A file cannot be read, or a column is missing or does not fit.
        """
        rows = 0
        schema: pa.Schema | None = None
        for file in files:
            with _opened(file) as parquet:
                rows += parquet.metadata.num_rows
                file_schema = parquet.schema_arrow
            if schema is None:
                schema = file_schema
                column = _column(schema, column, modality, file)
            for name in (column, key):
                if name is None:
                    continue
                if name not in file_schema.names:
                    raise SourceUnusable(
                        f"{file} has no column {name!r}; its columns are {', '.join(file_schema.names)}."
                    )
                if file_schema.field(name).type != schema.field(name).type:
                    raise SourceUnusable(
                        f"{file}: column {name!r} is {file_schema.field(name).type}, in {files[0].name} it is "
                        f"{schema.field(name).type}. Score the files one by one, or write them with one schema."
                    )
        assert schema is not None, "a source has at least one file"
        identity = Identity(
            kind="parquet", path=str(path), column=column, key=key, inputs=rows, fingerprint=fingerprint(files)
        )
        return cls(tuple(files), modality, identity, pa.int64() if key is None else schema.field(key).type)

    def items(self, start: int) -> Iterator[Item]:
        """Yield the rows from number `start` on; earlier row groups are not read.

        Raises:
            SourceUnusable: A file cannot be read.
        """
        column, key = self.identity.column, self.identity.key
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
                    _ROWS, row_groups=list(range(first, len(groups))), columns=list({column, key} - {None})
                )
                for batch in _read(file, batches):
                    skip = min(max(start - number, 0), len(batch))
                    rows = batch.slice(skip)
                    values = _values(rows.column(column), self.modality)
                    keys = range(number + skip, number + len(batch)) if key is None else rows.column(key).to_pylist()
                    for row_key, value in zip(keys, values, strict=True):
                        yield Item(row_key, missing_value() if value is None else value)
                    number += len(batch)


def _opened(file: Path) -> Any:
    try:
        # Without read-ahead: a column of a row group may be gigabytes.
        return pq.ParquetFile(file, buffer_size=_READ_BUFFER, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise unreadable_source(file, error) from error


def _read(file: Path, batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except (OSError, pa.ArrowException) as error:
        raise unreadable_source(file, error) from error


def _values(column: Any, modality: str) -> list[Any]:
    if modality == "text":
        return [None if text is None else Text(text) for text in column.to_pylist()]
    return list((pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column).to_pylist())


def _column(schema: pa.Schema, column: str | None, modality: str, file: Path) -> str:
    """Check that `column` fits the modality. None guesses it: the column named after the modality, or the only one."""
    fits: Callable[[pa.DataType], bool] = _is_text if modality == "text" else _is_image
    candidates = [field.name for field in schema if fits(field.type)]
    if column is None:
        if modality in candidates:
            return modality
        if len(candidates) == 1:
            return str(candidates[0])
        raise SourceUnusable(
            f"{file}: which column holds the {modality}s? {', '.join(candidates) or 'None of them'} could. "
            f"Name it with --column; the columns are {', '.join(schema.names)}."
        )
    if column in schema.names and column not in candidates:
        holds = "texts" if modality == "text" else "encoded images (bytes, or a struct with `bytes`)"
        raise SourceUnusable(
            f"{file}: column {column!r} is {schema.field(column).type}, and this model takes {holds}. "
            f"Columns that fit: {', '.join(candidates) or 'none'}."
        )
    return column


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        # Hugging Face's Image feature: {bytes, path}.
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)
