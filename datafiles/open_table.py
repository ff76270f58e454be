"""Opens a table by the suffix of its file."""

from collections.abc import Sequence
from pathlib import Path

from datafiles.csv_table import CsvTable
from datafiles.errors import DataFileError
from datafiles.json_table import JsonTable
from datafiles.lines import TextFile
from datafiles.parquet_table import ParquetTable
from datafiles.table import Table
from datafiles.text_table import LinesTable

TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt")
"""The suffixes of tables."""


def open_table(path: Path, wanted: Sequence[str] = (), kind: str | None = None) -> Table:
    """Open the table in a file.

    Args:
        path: the file.
        wanted: columns that help to find out the separator of a CSV file.
        kind: the suffix to read the file by; None for its own.

    Raises:
        DataFileError: The file is of another kind or cannot be read.
    """
    match kind or path.suffix.lower():
        case ".parquet":
            return ParquetTable.open(path)
        case ".csv" | ".tsv":
            return CsvTable.open(path, wanted)
        case ".jsonl" | ".ndjson" | ".json":
            return JsonTable.open(path)
        case ".txt":
            return LinesTable(TextFile.open(path))
    raise DataFileError(path, "is of no kind that can be read", f"Give a {', '.join(TABLE_SUFFIXES)} file")
