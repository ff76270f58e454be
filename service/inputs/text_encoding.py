"""Decodes the bytes of texts by their byte order mark or their declared charset."""

import codecs

# Python's other codecs include some that are no charsets, or take long: see RFC 2978 for the names.
_CODECS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "utf-32": "utf-32",
    "iso-8859-1": "iso-8859-1",
    "latin1": "iso-8859-1",
    "latin-1": "iso-8859-1",
    "iso-8859-15": "iso-8859-15",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
}
# UTF-32 comes first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

CHARSETS = ("utf-8", "utf-16", "utf-32", "iso-8859-1", "iso-8859-15", "windows-1252")
"""The charsets that error messages name."""


def codec_of(charset: str) -> str | None:
    """Python's codec of the `charset` of a media type; None if it is not supported."""
    return _CODECS.get(charset.strip().lower())


def decode_text(data: bytes, codec: str) -> str:
    """The text in `data`: in the encoding of its byte order mark if it has one, else in `codec`.

    Raises:
        UnicodeDecodeError: The bytes are not valid in that encoding.
    """
    for mark, marked_codec in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(marked_codec)
    return data.decode(codec)
