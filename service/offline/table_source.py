"""Tables: parquet, CSV, JSON lines and plain lines, with a column of texts, of images, or of paths of images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import Literal, Self

import pyarrow as pa

from datafiles import PICTURE_SUFFIXES, Table, Value, as_image, as_key, as_text
from datafiles.parquet_table import ParquetTable, has_bytes, is_bytes, is_string, plain_type
from service.inputs.payloads import Text
from service.offline.errors import SourceUnusable
from service.offline.source import Identity, Item, Kind, fingerprint, input_error

_SAMPLE_ROWS = 100
# Names of columns with the paths of images.
_PATH_COLUMNS = ("image", "file_name")


@dataclass(frozen=True)
class TableSource:
    """The rows of `table`; keys are those of the column `key`, or row numbers."""

    table: Table
    modality: Literal["image", "text"]
    identity: Identity
    key_type: pa.DataType

    @classmethod
    def open(
        cls, table: Table, kind: Kind, modality: Literal["image", "text"], column: str | None, key: str | None
    ) -> Self:
        """Choose the columns and count the rows; text files are read once for it.

        Args:
            table: The table.
            kind: Its format.
            modality: The modality of the model.
            column: The column of the inputs; None to guess it.
            key: The column of the keys; None for row numbers.

        Raises:
            SourceUnusable: A column is missing, or does not fit.
            DataFileError: The file cannot be read.
        """
        if kind == "lines" and (column or key):
            raise SourceUnusable(f"{table.path} has a text a line and no columns: leave --column and --key out.")
        files: Sequence[Path] = [table.path]
        if isinstance(table, ParquetTable):
            files = table.files
            column = _typed_column(table, column, modality)
        elif column is None:
            paths = [name for name in _PATH_COLUMNS if name in table.columns] if modality == "image" else []
            modality = "image" if paths else "text"
            column = paths[0] if paths else "text"
        table.require([column, *([] if key is None else [key])])
        identity = Identity(
            kind=kind,
            path=str(table.path),
            column=None if kind == "lines" else column,
            key=key,
            inputs=table.count(),
            fingerprint=fingerprint(files),
        )
        return cls(table, modality, identity, _key_type(table, key))

    def items(self, start: int) -> Iterator[Item]:
        """Yield the rows from number `start` on.

        Raises:
            DataFileError: The file cannot be read.
        """
        column, key = self.identity.column or "text", self.identity.key
        columns = [column] if key is None else [column, key]
        folder = self.table.path if self.table.path.is_dir() else self.table.path.parent
        key_of: Callable[[Value], object] = as_key if pa.types.is_string(self.key_type) else _same
        for number, row in enumerate(self.table.read(columns, start), start):
            value = as_text(row[0]) if self.modality == "text" else as_image(row[0], folder)
            content = Text(value) if isinstance(value, str) else value
            item_key = number if key is None else key_of(row[1])
            yield Item(item_key, input_error(content) if not isinstance(content, Text | bytes | Path) else content)


def _same(value: Value) -> object:
    return value


def _key_type(table: Table, key: str | None) -> pa.DataType:
    if key is None:
        return pa.int64()
    kind = plain_type(table.schema.field(key).type) if isinstance(table, ParquetTable) else pa.string()
    return pa.string() if is_string(kind) else kind


def _typed_column(table: ParquetTable, column: str | None, modality: str) -> str:
    """Check that `column` fits the modality. None guesses it: the column named after the modality, or the only one."""
    kinds = {str(field.name): plain_type(field.type) for field in table.schema}
    candidates = _candidates(kinds, modality)
    if column is None:
        if modality in candidates:
            return modality
        if len(candidates) == 1:
            return candidates[0]
        raise SourceUnusable(
            f"{table.path}: which column holds the {modality}s? {', '.join(candidates) or 'None of them'} could. "
            f"Name it with --column; the columns are {', '.join(kinds)}."
        )
    if column in kinds and column not in candidates and not _may_hold(table, column, kinds[column], modality):
        holds = "texts" if modality == "text" else "encoded images (bytes, or a struct with `bytes`), or their paths"
        raise SourceUnusable(
            f"{table.path}: column {column!r} is {kinds[column]}, and this model takes {holds}. "
            f"Columns that fit: {', '.join(candidates) or 'none'}."
        )
    return column


def _may_hold(table: ParquetTable, column: str, kind: pa.DataType, modality: str) -> bool:
    """Whether a column that is no candidate holds inputs: bytes may be texts, and strings paths of images."""
    if modality == "text":
        return is_bytes(kind)
    return is_string(kind) and any(
        isinstance(value, str) and PurePath(value).suffix.lower() in PICTURE_SUFFIXES
        for (value,) in islice(table.read([column]), _SAMPLE_ROWS)
    )


def _candidates(kinds: Mapping[str, pa.DataType], modality: str) -> list[str]:
    """The columns that can hold inputs: strings or, without any, bytes; images as bytes or, without any, as paths."""
    if modality == "text":
        strings = [name for name, kind in kinds.items() if is_string(kind)]
        return strings or [name for name, kind in kinds.items() if is_bytes(kind)]
    images = [name for name, kind in kinds.items() if has_bytes(kind)]
    return images or [name for name in _PATH_COLUMNS if name in kinds and is_string(kinds[name])]
