"""References: the training examples that scores of features compare an input with, by class and source."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from bundle.errors import ReferencesInvalid
from bundle.fields import Strict

MAX_SOURCE_CHARS = 200
"""The largest length of a reference's source."""


class Reference(Strict):
    """A training example.

    Attributes:
        label: its class.
        source: where it comes from: the path of an image in its folder, or the number of a row.
    """

    label: str
    source: str = Field(max_length=MAX_SOURCE_CHARS)


_REFERENCES = TypeAdapter(tuple[Reference, ...])


def save_references(path: Path, references: Sequence[Reference]) -> None:
    """Write `references`, in the order in which the graph numbers them, to `path` as JSON."""
    path.write_bytes(_REFERENCES.dump_json(tuple(references)) + b"\n")


def load_references(path: Path) -> tuple[Reference, ...]:
    """Read the file of `save_references`; ReferencesInvalid if it is none."""
    try:
        return _REFERENCES.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = f"cannot be read as a list of training examples: {error}"
        raise ReferencesInvalid(path.parent, path.name, reason, "Export the model again") from error
