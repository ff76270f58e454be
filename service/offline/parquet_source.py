"""Parquet files with a column of images or texts; several files of a folder are one collection."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.inputs.payloads import Text
from service.offline.errors import SourceUnusable, cannot_read
from service.offline.items import Item, missing
from service.offline.source import Identity, fingerprint

# Rows read at a time: encoded photographs of some megabytes each must fit as well as short texts.
_ROWS = 32
_READ_BUFFER = 2**20


@dataclass(frozen=True)
class ParquetSource:
    """Rows of `files` in order. Keys are those of the column `key`, or row numbers across all files."""

    files: tuple[Path, ...]
    modality: Literal["image", "text"]
    identity: Identity
    key_type: pa.DataType

    @classmethod
    def open(
        cls, path: Path, files: Sequence[Path], modality: Literal["image", "text"], column: str | None, key: str | None
    ) -> Self:
        """`column` None is guessed. Raises `SourceUnusable`."""
        rows = 0
        schema: pa.Schema | None = None
        for file in files:
            with _opened(file) as parquet:
                rows += parquet.metadata.num_rows
                here = parquet.schema_arrow
            if schema is None:
                schema = here
                column = _column(schema, column, modality, file)
            wanted = [name for name in (column, key) if name is not None]
            for name in wanted:
                if name not in here.names:
                    raise SourceUnusable(f"{file} has no column {name!r}; its columns are {', '.join(here.names)}.")
                if here.field(name).type != schema.field(name).type:
                    raise SourceUnusable(
                        f"{file}: column {name!r} is {here.field(name).type}, in {files[0].name} it is "
                        f"{schema.field(name).type}. Score the files one by one, or write them with one schema."
                    )
        assert schema is not None, "a source has at least one file"
        identity = Identity(
            kind="parquet", path=str(path), column=column, key=key, inputs=rows, fingerprint=fingerprint(files)
        )
        return cls(tuple(files), modality, identity, pa.int64() if key is None else schema.field(key).type)

    def items(self, start: int) -> Iterator[Item]:
        """The rows from number `start` on; row groups before it are not read. Raises `SourceUnusable`."""
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
                    for each, value in zip(keys, values, strict=True):
                        yield Item(each, missing() if value is None else value)
                    number += len(batch)


def _opened(file: Path) -> Any:
    try:
        # Buffered and not ahead: a column of a row group may be gigabytes.
        return pq.ParquetFile(file, buffer_size=_READ_BUFFER, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise cannot_read(file, error) from error


def _read(file: Path, batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except (OSError, pa.ArrowException) as error:
        raise cannot_read(file, error) from error


def _values(column: Any, modality: str) -> list[Any]:
    if modality == "text":
        return [None if text is None else Text(text) for text in column.to_pylist()]
    return list((pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column).to_pylist())


def _column(schema: pa.Schema, column: str | None, modality: str, file: Path) -> str:
    """`column` if it holds what the model takes; without one, the only column that does, or the one of that name."""
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
