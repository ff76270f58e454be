"""CSV files as spreadsheets and programs write them: separators, quotes, line ends and encodings are detected."""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from datafiles.errors import DataFileError, Fault
from datafiles.lines import LONGEST_LINE, TextFile
from datafiles.table import Row, Value
from datafiles.text_table import TextTable

_SEPARATORS = ",;\t|"
_NO_SEPARATOR = "\U0010ffff"
"""The separator of a file with one column: a code point that no text contains."""
_SAMPLE_ROWS = 100
_DECLARED = re.compile(r'^"?sep=(.)"?$', re.IGNORECASE)
"""The first line by which a spreadsheet names the separator."""


class _NotCsv(DataFileError):
    """A row cannot be read with the separator."""


@dataclass(frozen=True, slots=True)
class _CsvRow:
    """The cells of a row, and the offsets of its first byte and of the byte after it."""

    begin: int
    end: int
    cells: list[str]


class CsvTable(TextTable):
    """A CSV file with a header. Cells are strings, exactly as written: `null`, `007` and `1e5` stay as they are."""

    def __init__(self, file: TextFile, columns: Sequence[str], separator: str, body: int) -> None:
        super().__init__(file)
        self.columns = columns
        self._separator = separator
        self._body = body

    @classmethod
    def open(cls, path: Path, wanted: Sequence[str] = ()) -> "CsvTable":
        """Read the header and determine the separator.

        The separator is the one that the line `sep=;` names, else the one that the header contains. If it contains
        several, the one that gives the most of the columns `wanted`, and then the most rows of as many cells as the
        header. A header of one name has no separator: commas in its texts are part of them.

        Raises:
            DataFileError: The file cannot be read or has no header.
        """
        file = TextFile.open(path)
        begin, separators = file.begin, list(_SEPARATORS)
        first = next(file.lines(), None)
        if first is not None and first[0] is not None and (declared := _DECLARED.match(first[0].rstrip("\r\n"))):
            begin, separators = file.begin + first[1], [declared[1]]
        candidates = []
        for separator in separators:
            sample = _sample(file, separator, begin)
            if sample and (len(sample[0].cells) > 1 or len(separators) == 1):
                candidates.append((_fitness(sample, wanted), separator, sample[0]))
        if candidates:
            _, separator, header = max(candidates, key=lambda candidate: candidate[0])
        else:
            separator = _NO_SEPARATOR
            alone = next(_rows(file, separator, begin), None)
            if alone is None:
                raise DataFileError(path, "holds no header", "The first row of a CSV file names the columns")
            header = alone
        if "\0" in "".join(header.cells):
            raise DataFileError(path, "is no text file", "Save it as CSV in UTF-8")
        return cls(file, [name.strip() for name in header.cells], separator, header.end)

    def _records(self, begin: int) -> Iterator[tuple[int, Value]]:
        width = len(self.columns)
        for row in _rows(self._file, self._separator, begin or self._body):
            too_wide = len(row.cells) > width and any(cell.strip() for cell in row.cells[width:])
            yield row.begin, self._too_wide(row.cells) if too_wide else row.cells

    def _cells(self, record: Value, columns: Sequence[str]) -> Row:
        positions = [list(self.columns).index(name) for name in columns]
        return tuple(record[position] if position < len(record) else None for position in positions)

    def _too_wide(self, row: list[str]) -> Fault:
        separator = "" if self._separator == _NO_SEPARATOR else f" {self._separator!r}"
        detail = (
            f"The row has {len(row)} cells, the header {len(self.columns)}. Put quotes around cells that contain the "
            f"separator{separator}."
        )
        return Fault("malformed", detail)


def _sample(file: TextFile, separator: str, begin: int) -> list[_CsvRow]:
    """The first rows, up to one that cannot be read with the separator."""
    sample: list[_CsvRow] = []
    with suppress(_NotCsv):
        for row in islice(_rows(file, separator, begin), _SAMPLE_ROWS + 1):
            sample.append(row)
    return sample


def _fitness(sample: Sequence[_CsvRow], wanted: Sequence[str]) -> tuple[int, float, int]:
    """How well a separator fits: columns wanted in the header, share of rows as wide as the header, and its width."""
    names = {name.strip().casefold() for name in sample[0].cells}
    found = sum(name.strip().casefold() in names for name in wanted)
    width, rows = len(sample[0].cells), sample[1:]
    return found, sum(len(row.cells) == width for row in rows) / max(len(rows), 1), width


def _rows(file: TextFile, separator: str, begin: int) -> Iterator[_CsvRow]:
    """Yield each row that is not blank; DataFileError for one that cannot be read."""
    # The default limit would fail the whole file because of one long cell.
    csv.field_size_limit(LONGEST_LINE)
    offset, lines = begin, 0

    def decoded(begin: int) -> Iterator[str]:
        nonlocal offset, lines
        for line, size in file.lines(begin):
            if line is None:
                raise csv.Error(f"a line is longer than {LONGEST_LINE:,} characters")
            offset += size
            lines += 1
            yield line

    reader = csv.reader(decoded(begin), delimiter=separator)
    row_begin = begin
    try:
        while True:
            # The reader takes no more lines than a row needs, so this is the offset of the next row.
            last, row_begin, lines = (row_begin, lines), offset, 0
            cells = next(reader, None)
            if cells is None:
                break
            if cells:
                yield _CsvRow(row_begin, offset, cells)
        row_begin, lines = last
        if lines > 1 and _is_open(decoded(row_begin), separator):
            raise csv.Error("a quote is not closed")
    except csv.Error as error:
        reason = f"cannot be read as CSV: {error}, in the row that begins at byte {row_begin:,}"
        raise _NotCsv(file.path, reason, "Repair that row") from error


def _is_open(lines: Iterator[str], separator: str) -> bool:
    """Whether the last row ends within quotes: the reader takes the end of the file for the closing quote."""
    try:
        deque(csv.reader(lines, delimiter=separator, strict=True), 0)
    except csv.Error as error:
        return "end of data" in str(error)
    return False
