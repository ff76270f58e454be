"""The interface of a table: named columns, and rows that are read in order from any position on."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from datafiles.errors import DataFileError

Value = Any
"""A cell: a string, bytes, a number, None if it is missing, or a `Fault`."""

Row = tuple[Value, ...]


class Table(Protocol):
    """A table in a file. It can be pickled."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns."""

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """The names of the classes of columns that hold class numbers, as Hugging Face `datasets` writes them."""

    def count(self) -> int:
        """The number of rows. A text file is read for it."""

    def require(self, columns: Sequence[str]) -> None:
        """Raise DataFileError unless the table has each of `columns`, once and of one type."""

    def read(self, columns: Sequence[str], start: int = 0) -> Iterator[Row]:
        """Yield the values of `columns` in each row from number `start` on, with a few rows in memory.

        Raises:
            DataFileError: The file cannot be read, or lacks a column.
        """


def require_columns(table: Table, names: Sequence[str]) -> None:
    """Raise DataFileError unless `table` has each column of `names`, and has it once."""
    for name in names:
        if name not in table.columns:
            known = ", ".join(printable_names(table.columns)) or "none"
            reason = f"has no column '{name}'{did_you_mean(name, table.columns)}; its columns are {known}"
            raise DataFileError(table.path, reason, "Rename it, or name another one")
        if list(table.columns).count(name) > 1:
            raise DataFileError(table.path, f"has the column '{name}' twice", "Rename or remove one of them")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The phrase that suggests the name among `known` that `name` is a misspelling of; empty if there is none."""
    folded = {other.strip().casefold(): other for other in known}
    near = difflib.get_close_matches(name.strip().casefold(), list(folded), 1)
    return f" (did you mean '{folded[near[0]]}'?)" if near else ""


def printable_names(names: Sequence[str]) -> list[str]:
    """The names without characters that would control a terminal."""
    return [name if name.isprintable() else repr(name) for name in names]
