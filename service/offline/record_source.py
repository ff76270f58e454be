"""Text files: one text per line, JSON lines, or CSV."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self

import pyarrow as pa

from service.errors import InputError
from service.inputs.payloads import Payload, Text, text_of
from service.offline.errors import SourceUnusable, unreadable_source
from service.offline.source import Identity, Item, fingerprint, missing_value

# One offset is kept for this many records, so that reading can start there.
_MARK_EVERY = 10_000
# Bounds the memory for a file without line breaks.
_LONGEST_LINE = 2**24
_BOM = b"\xef\xbb\xbf"

Kind = Literal["csv", "jsonl", "lines"]
Record = tuple[str | None, Payload]
"""The value of the key column, or None, and the input to score."""


@dataclass(frozen=True)
class RecordSource:
    """The records of `file`; keys are the values of the column `key`, as text, or record numbers."""

    file: Path
    kind: Kind
    identity: Identity
    marks: tuple[int, ...]
    modality: Literal["text"] = "text"

    @classmethod
    def open(cls, file: Path, kind: Kind, column: str | None, key: str | None) -> Self:
        """Count the records by reading the file once.

        Args:
            file: The file.
            kind: Its format.
            column: The column of the texts; None for "text".
            key: The column of the keys; None for record numbers.

        Raises:
            SourceUnusable: The file cannot be read or lacks a column.
        """
        if kind == "lines" and (column or key):
            raise SourceUnusable(f"{file} has a text a line and no columns: leave --column and --key out.")
        column = None if kind == "lines" else column or "text"
        marks: list[int] = []
        count = 0
        for offset, _ in _records(file, kind, column, key, 0):
            if count % _MARK_EVERY == 0:
                marks.append(offset)
            count += 1
        identity = Identity(
            kind=kind, path=str(file), column=column, key=key, inputs=count, fingerprint=fingerprint([file])
        )
        return cls(file, kind, identity, tuple(marks))

    @property
    def key_type(self) -> pa.DataType:
        """Strings, or integers without a key column."""
        return pa.int64() if self.identity.key is None else pa.string()

    def items(self, start: int) -> Iterator[Item]:
        """Yield the records from number `start` on.

        Raises:
            SourceUnusable: The file cannot be read.
        """
        mark = start // _MARK_EVERY
        if mark >= len(self.marks):
            return
        records = _records(self.file, self.kind, self.identity.column, self.identity.key, self.marks[mark])
        for number, (_, (key, payload)) in enumerate(records, mark * _MARK_EVERY):
            if number >= start:
                yield Item(number if self.identity.key is None else key, payload)


def _records(file: Path, kind: Kind, column: str | None, key: str | None, begin: int) -> Iterator[tuple[int, Record]]:
    """Yield each record after the offset of its first byte; `begin` is such an offset, or 0."""
    try:
        with file.open("rb") as opened:
            if kind == "csv":
                yield from _csv(file, opened, column or "text", key, begin)
                return
            read: Callable[[bytes], Record] = (
                (lambda line: (None, text_of(line))) if kind == "lines" else _json_reader(column or "text", key)
            )
            opened.seek(begin)
            offset = begin
            for line, size in _lines(opened):
                yield offset, (None, _too_long()) if line is None else read(line.rstrip(b"\r\n"))
                offset += size
    except (OSError, csv.Error) as error:
        raise unreadable_source(file, error) from error


def _lines(opened: BinaryIO) -> Iterator[tuple[bytes | None, int]]:
    """Yield each line and its number of bytes; None instead of a line that is longer than `_LONGEST_LINE`."""
    while line := opened.readline(_LONGEST_LINE):
        size = len(line)
        complete = size < _LONGEST_LINE or line.endswith(b"\n")
        rest = line
        while not rest.endswith(b"\n") and (rest := opened.readline(_LONGEST_LINE)):
            size += len(rest)
        yield line if complete else None, size


def _json_reader(column: str, key: str | None) -> Callable[[bytes], Record]:
    def read(line: bytes) -> Record:
        try:
            record = json.loads(line.removeprefix(_BOM))
        except (ValueError, RecursionError) as error:
            return None, InputError("malformed-record", f"The line is not JSON: {error}")
        if not isinstance(record, dict):
            return None, InputError("malformed-record", "The line is no JSON object.")
        value = None if key is None else record.get(key)
        text = record.get(column)
        if text is None:
            payload: Payload = missing_value()
        elif isinstance(text, str):
            payload = _valid(text)
        else:
            payload = InputError("malformed-record", f"{column!r} is no string.")
        return (None if value is None else _printable(value if isinstance(value, str) else json.dumps(value))), payload

    return read


def _csv(file: Path, opened: BinaryIO, column: str, key: str | None, begin: int) -> Iterator[tuple[int, Record]]:
    offset = 0

    def decoded() -> Iterator[str]:
        nonlocal offset
        for line, size in _lines(opened):
            if line is None:
                raise csv.Error(f"a line is longer than {_LONGEST_LINE:,} bytes")
            text = line.removeprefix(_BOM if offset == 0 else b"").decode("utf-8", "surrogateescape")
            offset += size
            yield text

    # The default limit would fail the whole file because of one long cell.
    csv.field_size_limit(_LONGEST_LINE)
    header = next(csv.reader(decoded()), [])
    for name in filter(None, (column, key)):
        if name not in header:
            raise SourceUnusable(f"{file} has no column {name!r}; its columns are {', '.join(header)}.")
    if begin:
        opened.seek(begin)
        offset = begin
    position = header.index(column)
    key_position = None if key is None else header.index(key)
    rows = csv.reader(decoded())
    while True:
        # The reader takes no more lines than a row needs, so this is the offset of the next row.
        row_offset = offset
        row = next(rows, None)
        if row is None:
            return
        if not row:
            continue
        value = _printable(row[key_position]) if key_position is not None and key_position < len(row) else None
        yield row_offset, (value, _valid(row[position]) if position < len(row) else missing_value())


def _valid(text: str) -> Payload:
    """The text, or an error if it holds surrogates: bytes that are not UTF-8, or half of a character in JSON."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return InputError("undecodable-text", f"The text is not Unicode: {error}")
    return Text(text)


def _printable(key: str) -> str:
    return key.encode("utf-8", "replace").decode()


def _too_long() -> InputError:
    return InputError("text-too-long", f"The line is longer than {_LONGEST_LINE:,} bytes.")
