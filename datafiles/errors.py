"""The errors of data files: of a whole file, and of a single value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FaultKind = Literal["missing", "encoding", "malformed", "file", "too-long"]


class DataFileError(Exception):
    """A file or folder that cannot be read.

    Attributes:
        path: the file.
        reason: what is wrong with it, without a full stop.
        remedy: what to do about it.
    """

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(path, reason, remedy)
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path} {self.reason}. {self.remedy}."


@dataclass(frozen=True, slots=True)
class Fault:
    """The reason why a single value cannot be used; other rows of its file can.

    Attributes:
        kind: `missing` (no value), `encoding` (not text), `malformed` (not a record), `file` (the file that the value
            names cannot be read) or `too-long`.
        detail: a sentence with the reason, and the remedy where it is not obvious.
    """

    kind: FaultKind
    detail: str


MISSING = Fault("missing", "There is no value in this row.")
