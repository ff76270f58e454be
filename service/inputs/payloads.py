"""Payloads: the inputs as clients send them, before they are decoded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import InputError
from service.inputs.text_encoding import decode_text


@dataclass(frozen=True, slots=True)
class Base64:
    """An encoded image in base64. Decoding it is left to a worker thread."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text to score."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An image as the model takes it, uint8 `[H, W, C]`: it is neither decoded nor resized."""

    array: NDArray[np.uint8]


Payload = bytes | Base64 | Pixels | Text | InputError
"""One input as it was sent: an image (`bytes`, `Base64`, `Pixels`), a text, or the error of a malformed input."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a request, and the id that the client gave it."""

    payload: Payload
    id: str | None = None


def text_of(data: bytes, codec: str = "utf-8") -> Text | InputError:
    """The text in `data`: in the encoding of its byte order mark if it has one, else in `codec`."""
    try:
        return Text(decode_text(data, codec))
    except UnicodeDecodeError as error:
        return InputError("undecodable-text", f"The text is not {error.encoding.upper()}: {error}")
