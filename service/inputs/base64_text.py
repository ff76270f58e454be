"""Decodes base64 as clients write it: in data URIs, with line breaks, in the URL-safe alphabet, without padding."""

import binascii
from urllib.parse import unquote, unquote_to_bytes

_STANDARD_ALPHABET = str.maketrans("-_", "+/")


def decode_base64(text: str) -> bytes:
    """The bytes that `text` encodes.

    Args:
        text: Base64, or a data URI (RFC 2397), also one without base64.

    Raises:
        ValueError: `text` is neither.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return _decode_variant(text)


def decode_base64_head(text: str, size: int) -> bytes:
    """The first bytes that `text` encodes, about `size` of them; none if `text` begins with no base64.

    Args:
        text: As for `decode_base64`.
        size: The number of bytes.
    """
    # The media type of a data URI and its parameters are short.
    head = text[: 2 * size]
    if head.lstrip()[:5].lower() == "data:":
        head = head.partition(",")[2]
    digits = "".join(head.split()).translate(_STANDARD_ALPHABET)[: size // 3 * 4]
    try:
        return binascii.a2b_base64(digits[: len(digits) // 4 * 4])
    except ValueError:
        return b""


def _decode_variant(text: str) -> bytes:
    text = text.strip()
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma:
            raise ValueError("the data URI has no comma before its data")
        if not head.rstrip().lower().endswith(";base64"):
            return unquote_to_bytes(text)
        text = unquote(text)
    digits = "".join(text.split()).rstrip("=").translate(_STANDARD_ALPHABET)
    return binascii.a2b_base64(digits + "=" * (-len(digits) % 4), strict_mode=True)
