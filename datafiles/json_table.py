"""JSON lines, and JSON files with one list of objects."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from datafiles.errors import DataFileError, Fault
from datafiles.lines import TextFile, too_long, undecodable
from datafiles.table import Row, Value
from datafiles.text_table import TextTable

_SAMPLE_ROWS = 1000


class JsonTable(TextTable):
    """A file with one JSON object per line. Values keep their JSON types."""

    @classmethod
    def open(cls, path: Path) -> "JsonTable | JsonListTable":
        """Read the names of the columns from the first rows.

        Raises:
            DataFileError: The file cannot be read.
        """
        file = TextFile.open(path)
        if _holds_list(file):
            return JsonListTable(file)
        table = cls(file)
        records = islice(table._records(0), _SAMPLE_ROWS)
        # A dictionary keeps the order of the columns.
        table.columns = list({key: None for _, record in records if isinstance(record, dict) for key in record})
        return table

    def _records(self, begin: int) -> Iterator[tuple[int, Value]]:
        offset = max(begin, self._file.begin)
        for line, size in self._file.lines(begin):
            if line is None:
                yield offset, too_long()
            # A blank line separates nothing: a file may end with several.
            elif line.strip():
                yield offset, undecodable(line) or _parse(line)
            offset += size

    def _cells(self, record: Value, columns: Sequence[str]) -> Row:
        return tuple(record.get(name) for name in columns)


class JsonListTable(TextTable):
    """A JSON file with one list of objects, which is read into memory. Offsets are the numbers of its rows."""

    def __init__(self, file: TextFile) -> None:
        super().__init__(file)
        self.columns = list({key: None for _, record in self._records(0) if isinstance(record, dict) for key in record})

    def _records(self, begin: int) -> Iterator[tuple[int, Value]]:
        text = "".join(line or "" for line, _ in self._file.lines())
        try:
            records = json.loads(text)
        except (ValueError, RecursionError) as error:
            remedy = "Give a list of objects, or one object per line"
            raise DataFileError(self.path, f"is not JSON: {error}", remedy) from error
        for number, record in enumerate(records[begin:], begin):
            yield number, record if isinstance(record, dict) else Fault("malformed", "The entry is no JSON object.")

    def _cells(self, record: Value, columns: Sequence[str]) -> Row:
        return tuple(record.get(name) for name in columns)


def _parse(line: str) -> Value:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Fault("malformed", f"The line is not JSON: {error}")
    return record if isinstance(record, dict) else Fault("malformed", "The line is no JSON object.")


def _holds_list(file: TextFile) -> bool:
    """Whether the file is one list of objects and not JSON lines, of which one may be a list by mistake."""
    first = next((line.strip() for line, _ in file.lines() if line is not None and line.strip()), "")
    if not first.startswith("["):
        return False
    try:
        return any(isinstance(value, dict) for value in json.loads(first))
    except (ValueError, RecursionError):
        return True
