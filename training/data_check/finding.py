"""A finding of the data check: what is wrong, how much of it there is, where, and what to do."""

from collections.abc import Iterable
from itertools import islice
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

Severity = Literal["error", "warning", "info"]
"""`error`: `run` refuses the data. `warning`: figures or guarantees may be wrong. `info`: the data may be right."""

EXAMPLES: Final = 20
"""The largest number of examples of a finding."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Part):
    """An input of a data set.

    Attributes:
        set: The name of the set.
        row: The number of the row in its source, from 0.
        file: The path of the image file; None if the input has none.
        excerpt: The beginning of a text; None for images.
    """

    set: str
    row: int
    file: str | None = None
    excerpt: str | None = None

    def __str__(self) -> str:
        """The set, the row and, if there is one, the file or the beginning of the text."""
        detail = self.file or self.excerpt
        return f"{self.set}, row {self.row}" + (f" ({detail})" if detail else "")


class Example(_Part):
    """The inputs that show a finding together, and a note on them."""

    places: tuple[Place, ...]
    note: str = ""

    def __str__(self) -> str:
        """The places and the note in one line."""
        return " and ".join(map(str, self.places)) + (f": {self.note}" if self.note else "")


class Finding(_Part):
    """The result of one check.

    Attributes:
        check: The name of the check.
        severity: How serious the finding is.
        count: The number of inputs, classes or features that it is about.
        message: What was found, without a full stop.
        remedy: What to do, without a full stop.
        examples: At most `EXAMPLES` examples.
    """

    check: str
    severity: Severity
    count: int
    message: str
    remedy: str
    examples: tuple[Example, ...] = ()

    def __str__(self) -> str:
        """The finding in one line."""
        return f"{self.severity}: {self.message}. {self.remedy}"


def first_examples(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The first `EXAMPLES` examples."""
    return tuple(islice(examples, EXAMPLES))
