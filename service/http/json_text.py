"""JSON texts as clients write them: other encodings than UTF-8, halves of surrogate pairs, and too many values."""

import codecs
import json
from typing import Any

from pydantic_core import from_json

from service.errors import MalformedBody

# Strings with more escapes than this are not parsed a second time: it would block all other requests.
_MAX_SECOND_PARSE_ESCAPES = 1_000_000
# The first byte of a half in UTF-8, where it must not occur.
_ENCODED_HALF = b"\xed"


def to_utf8(text: bytes) -> bytes:
    """`text` in UTF-8 without a byte order mark, from UTF-8, UTF-16 or UTF-32 (RFC 8259 clients of old send these).

    Raises:
        MalformedBody: The text is not valid in its encoding.
    """
    if text.startswith(codecs.BOM_UTF8):
        return text[len(codecs.BOM_UTF8) :]
    # In UTF-8 no JSON text begins with these bytes, nor has a zero among its first two.
    if text[:1] not in (b"\xff", b"\xfe", b"\0") and text[1:2] != b"\0":
        return text
    encoding = json.detect_encoding(text)
    try:
        return text.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeError as error:
        raise MalformedBody(f"The body is not valid {encoding}: {error}") from None


def parse_json_text(text: bytes) -> tuple[Any, bool]:
    r"""Parse a JSON text in UTF-8.

    Returns:
        The value, and whether a string in it has half of a surrogate pair (`\ud83d`), as from a text that was cut in
        the middle of a character. Such a string cannot be encoded.

    Raises:
        ValueError: The text is not JSON.
    """
    try:
        # NaN is not JSON, but common encoders write it: the validation of the parameter rejects it by name.
        return from_json(text, allow_inf_nan=True), False
    except ValueError as error:
        halves = text.count(b"\\ud") + text.count(b"\\uD") + text.count(_ENCODED_HALF)
        if not 0 < halves <= _MAX_SECOND_PARSE_ESCAPES:
            raise
        try:
            return json.loads(text), True
        except (ValueError, RecursionError):
            raise error from None


def without_surrogates(value: Any) -> Any:
    """`value` with U+FFFD for each half of a surrogate pair, in keys, too."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    return value


def is_unicode(text: str) -> bool:
    """Whether `text` has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_too_many_values(text: bytes, limit: int) -> bool:
    """Whether the JSON text holds more than `limit` values; does not build them.

    Thirty megabytes of `{},{},...` would become a gigabyte of objects and block all other requests for seconds.
    """
    # Bodies of images in base64 contain few such characters, so that strings need not be looked at.
    if _count(text) <= limit:
        return False
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Every second part is outside of strings. More strings than this have more commas and colons than there may be.
    most_quotes = 4 * limit + 4
    parts = text.split(b'"', most_quotes)
    return len(parts) > most_quotes or sum(map(_count, parts[::2])) > limit


def _count(text: bytes) -> int:
    return text.count(b",") + text.count(b"{") + text.count(b"[")
