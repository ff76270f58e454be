"""What clients send as inputs: images, texts, or something that is neither."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import InputError


@dataclass(frozen=True, slots=True)
class Base64:
    """An encoded image in base64, not decoded yet: that is work for a worker thread."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text to score."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An image as the model takes it, uint8 `[H, W, C]`: nothing to decode, nothing to resize."""

    array: NDArray[np.uint8]


Payload = bytes | Base64 | Pixels | Text | InputError
"""One input as it was sent: an image, encoded or not, a text, or what is wrong with something that is neither."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a request, and the client's own name for it."""

    payload: Payload
    id: str | None = None


def text_of(data: bytes) -> Text | InputError:
    """The text in `data`, UTF-8; a byte order mark in front of it is the mark of an editor, not part of the text."""
    try:
        return Text(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return InputError("undecodable-text", f"The text is not UTF-8: {error}")
