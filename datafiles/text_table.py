"""Tables in text files: the part that CSV, JSON lines and plain lines share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from datafiles.errors import Fault
from datafiles.lines import TextFile, too_long
from datafiles.table import Row, Value, require_columns

MARK_EVERY = 10_000
"""One offset is kept for this many rows, so that reading can start there."""


class TextTable(ABC):
    """A table in a text file. `count` remembers the offsets of some rows for `read`."""

    class_names: Mapping[str, Sequence[str]] = {}
    columns: Sequence[str] = ()

    def __init__(self, file: TextFile) -> None:
        self._file = file
        self._marks: list[int] = []
        self._count: int | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def count(self) -> int:
        """The number of rows, by reading the file once."""
        if self._count is None:
            number = 0
            for offset, _ in self._records(0):
                if number % MARK_EVERY == 0:
                    self._marks.append(offset)
                number += 1
            self._count = number
        return self._count

    def require(self, columns: Sequence[str]) -> None:
        """Raise DataFileError unless the table has each of `columns`, and has it once."""
        require_columns(self, columns)

    def read(self, columns: Sequence[str], start: int = 0) -> Iterator[Row]:
        """Yield the values of `columns` in each row from number `start` on."""
        self.require(columns)
        if start:
            self.count()
        mark = start // MARK_EVERY
        if mark and mark >= len(self._marks):
            return
        begin = self._marks[mark] if mark else 0
        for number, (_, record) in enumerate(self._records(begin), mark * MARK_EVERY):
            if number >= start:
                yield (record,) * len(columns) if isinstance(record, Fault) else self._cells(record, columns)

    @abstractmethod
    def _records(self, begin: int) -> Iterator[tuple[int, Value]]:
        """Yield each record, or its fault, after the offset of its first byte; `begin` is such an offset, or 0."""

    @abstractmethod
    def _cells(self, record: Value, columns: Sequence[str]) -> Row:
        """The values of `columns` in a record."""


class LinesTable(TextTable):
    """A file of texts, one per line, as the column `text`."""

    columns = ("text",)

    def _records(self, begin: int) -> Iterator[tuple[int, Value]]:
        offset = max(begin, self._file.begin)
        for line, size in self._file.lines(begin):
            yield offset, too_long() if line is None else line.rstrip("\r\n")
            offset += size

    def _cells(self, record: Value, columns: Sequence[str]) -> Row:  # noqa: ARG002 - the only column
        return (record,)
