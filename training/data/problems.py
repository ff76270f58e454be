"""Problems: the rows of data sets that cannot be used, listed together."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from training.errors import DataError

_LISTED = 1000
"""The number of lines, and of rows in a line, that a message has at most."""


@dataclass(frozen=True)
class Problem:
    """A row that cannot be used.

    Attributes:
        source: the path of the data set.
        row: the number of the row in it, from 0.
        reason: what is wrong with it, without a full stop.
        file: the path of the image file, if the row has one.
    """

    source: str
    row: int
    reason: str
    file: str | None = None


class BrokenInputs(DataError):
    """Rows of data sets that cannot be used."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        lines = describe_problems(self.problems)
        n = len(self.problems)
        subject = lines[0] if n == 1 else f"{n:,} inputs cannot be used"
        reason = "" if n == 1 else "".join(f"\n  {line}" for line in lines)
        super().__init__(subject, reason, _REMEDY)

    def __reduce__(self) -> tuple[type["BrokenInputs"], tuple[Sequence[Problem]]]:
        # Errors of data workers are pickled.
        return BrokenInputs, (self.problems,)

    def __str__(self) -> str:
        return f"{self.subject}.\n{self.remedy}" if not self.reason else f"{self.subject}:{self.reason}\n{self.remedy}"


_REMEDY = "Repair or remove them, or leave them out: --skip-broken (in a recipe skip_broken: true)"


def describe_problems(problems: Iterable[Problem]) -> list[str]:
    """One line for each image file, and for each reason in a table with all its rows."""
    rows: dict[tuple[str, str], list[int]] = {}
    lines: list[str | tuple[str, str]] = []
    for problem in problems:
        if problem.file is not None:
            lines.append(f"{problem.source}, row {problem.row} ({problem.file}): {problem.reason}")
            continue
        key = (problem.source, problem.reason)
        if key not in rows:
            lines.append(key)
        rows.setdefault(key, []).append(problem.row)
    described = [line if isinstance(line, str) else _rows_line(*line, rows[line]) for line in lines[:_LISTED]]
    return described + ([f"and {len(lines) - _LISTED:,} more"] if len(lines) > _LISTED else [])


def _rows_line(source: str, reason: str, rows: Sequence[int]) -> str:
    numbers = ", ".join(str(row) for row in rows[:_LISTED]) + (", ..." if len(rows) > _LISTED else "")
    return f"{source}, row{'s' if len(rows) > 1 else ''} {numbers}: {reason}"


def all_problems(loads: Iterable[Callable[[], object]]) -> list[Problem]:
    """Call each of `loads` and collect the problems of those that raise BrokenInputs."""
    problems: list[Problem] = []
    for load in loads:
        try:
            load()
        except BrokenInputs as error:
            problems += error.problems
    return list(dict.fromkeys(problems))


def announce_left_out(problems: Sequence[Problem], announce: Callable[[str], None]) -> None:
    """Announce the inputs that are left out, one line for each of `describe_problems`."""
    if problems:
        announce(f"left out {len(problems):,} inputs that cannot be used:")
        for line in describe_problems(problems):
            announce(f"  {line}")
