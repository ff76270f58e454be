"""Text files: a text a line, JSON lines, or CSV."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self

import pyarrow as pa

from service.errors import InputError
from service.inputs.payloads import Payload, Text, text_of
from service.offline.errors import SourceUnusable, cannot_read
from service.offline.items import Item, missing
from service.offline.source import Identity, fingerprint

# Of so many records one place is remembered, so that reading can begin there.
_MARK_EVERY = 10_000
# A file without line breaks must not come into memory as a whole.
_LONGEST_LINE = 2**24
_BOM = b"\xef\xbb\xbf"

Kind = Literal["csv", "jsonl", "lines"]
Record = tuple[str | None, Payload]
"""The key column's value, None without one, and what to score."""


@dataclass(frozen=True)
class RecordSource:
    """The records of `file`. Keys are those of the column `key`, as text, or record numbers."""

    file: Path
    kind: Kind
    identity: Identity
    marks: tuple[int, ...]
    modality: Literal["text"] = "text"

    @classmethod
    def open(cls, file: Path, kind: Kind, column: str | None, key: str | None) -> Self:
        """Counts the records, which reads the file once. Raises `SourceUnusable`."""
        if kind == "lines" and (column or key):
            raise SourceUnusable(f"{file} has a text a line and no columns: leave --column and --key out.")
        column = None if kind == "lines" else column or "text"
        marks: list[int] = []
        count = 0
        for at, _ in _records(file, kind, column, key, 0):
            if count % _MARK_EVERY == 0:
                marks.append(at)
            count += 1
        identity = Identity(
            kind=kind, path=str(file), column=column, key=key, inputs=count, fingerprint=fingerprint([file])
        )
        return cls(file, kind, identity, tuple(marks))

    @property
    def key_type(self) -> pa.DataType:
        """Text or whole numbers."""
        return pa.int64() if self.identity.key is None else pa.string()

    def items(self, start: int) -> Iterator[Item]:
        """The records from number `start` on. Raises `SourceUnusable`."""
        mark = start // _MARK_EVERY
        if mark >= len(self.marks):
            return
        records = _records(self.file, self.kind, self.identity.column, self.identity.key, self.marks[mark])
        for number, (_, (key, payload)) in enumerate(records, mark * _MARK_EVERY):
            if number >= start:
                yield Item(number if self.identity.key is None else key, payload)


def _records(file: Path, kind: Kind, column: str | None, key: str | None, begin: int) -> Iterator[tuple[int, Record]]:
    """Each record with the offset of its first byte; `begin` is such an offset, or 0."""
    try:
        with file.open("rb") as opened:
            if kind == "csv":
                yield from _csv(file, opened, column or "text", key, begin)
                return
            read: Callable[[bytes], Record] = (
                (lambda line: (None, text_of(line))) if kind == "lines" else _json_reader(column or "text", key)
            )
            opened.seek(begin)
            at = begin
            for line, size in _lines(opened):
                yield at, (None, _too_long()) if line is None else read(line.rstrip(b"\r\n"))
                at += size
    except (OSError, csv.Error) as error:
        raise cannot_read(file, error) from error


def _lines(opened: BinaryIO) -> Iterator[tuple[bytes | None, int]]:
    """Each line and its bytes; None for one that is longer than any text that could be scored."""
    while line := opened.readline(_LONGEST_LINE):
        size = len(line)
        whole = size < _LONGEST_LINE or line.endswith(b"\n")
        rest = line
        while not rest.endswith(b"\n") and (rest := opened.readline(_LONGEST_LINE)):
            size += len(rest)
        yield line if whole else None, size


def _json_reader(column: str, key: str | None) -> Callable[[bytes], Record]:
    def read(line: bytes) -> Record:
        try:
            record = json.loads(line.removeprefix(_BOM))
        except (ValueError, RecursionError) as error:
            return None, InputError("malformed-record", f"The line is not JSON: {error}")
        if not isinstance(record, dict):
            return None, InputError("malformed-record", "The line is no JSON object.")
        name = None if key is None else record.get(key)
        text = record.get(column)
        if text is None:
            payload: Payload = missing()
        elif isinstance(text, str):
            payload = _valid(text)
        else:
            payload = InputError("malformed-record", f"{column!r} is no string.")
        return (None if name is None else _printable(name if isinstance(name, str) else json.dumps(name))), payload

    return read


def _csv(file: Path, opened: BinaryIO, column: str, key: str | None, begin: int) -> Iterator[tuple[int, Record]]:
    at = 0

    def decoded() -> Iterator[str]:
        nonlocal at
        for line, size in _lines(opened):
            if line is None:
                raise csv.Error(f"a line is longer than {_LONGEST_LINE:,} bytes")
            text = line.removeprefix(_BOM if at == 0 else b"").decode("utf-8", "surrogateescape")
            at += size
            yield text

    # Longer cells than the default allows are an error of their row, not of the file.
    csv.field_size_limit(_LONGEST_LINE)
    header = next(csv.reader(decoded()), [])
    for name in filter(None, (column, key)):
        if name not in header:
            raise SourceUnusable(f"{file} has no column {name!r}; its columns are {', '.join(header)}.")
    if begin:
        opened.seek(begin)
        at = begin
    place = header.index(column)
    key_place = None if key is None else header.index(key)
    rows = csv.reader(decoded())
    while True:
        # The reader takes no more lines than a row needs, so that this is where the next row begins.
        before = at
        row = next(rows, None)
        if row is None:
            return
        if not row:
            continue
        named = _printable(row[key_place]) if key_place is not None and key_place < len(row) else None
        yield before, (named, _valid(row[place]) if place < len(row) else missing())


def _valid(text: str) -> Payload:
    """The text, unless it holds surrogates: bytes that are no UTF-8, or half of a character in JSON."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return InputError("undecodable-text", f"The text is not Unicode: {error}")
    return Text(text)


def _printable(key: str) -> str:
    return key.encode("utf-8", "replace").decode()


def _too_long() -> InputError:
    return InputError("text-too-long", f"The line is longer than {_LONGEST_LINE:,} bytes.")
