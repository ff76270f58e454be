"""One input of a collection."""

from dataclasses import dataclass
from pathlib import Path

from service.errors import InputError
from service.inputs.payloads import Payload


@dataclass(frozen=True, slots=True)
class Item:
    """An input under its `key`. A path is read only when the input's turn comes, on the thread that scores it."""

    key: object
    content: Payload | Path


def payload_of(item: Item) -> Payload:
    """What to score, or why it cannot be read."""
    if not isinstance(item.content, Path):
        return item.content
    try:
        return item.content.read_bytes()
    except OSError as error:
        return InputError("unreadable-file", f"The file cannot be read: {error.strerror or error}")


def missing() -> InputError:
    """What is wrong with an input that is null, or not there at all."""
    return InputError("empty-input", "There is no value in this row.")
