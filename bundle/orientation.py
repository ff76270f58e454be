"""Reads the orientation of a picture from its EXIF and XMP data.

Pillow's parser reads every tag, and warns about each corrupt one in text from the file: clients could fill a server's
log and Python's registry of warnings.
"""

import binascii
import re
import struct

_ORIENTATION_TAG = 0x0112
_SHORT = 3
_MAX_XMP_BYTES = 262_144
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|\s*>\s*)([1-8])""")


class Orientation:
    """The orientation of one picture, from its metadata: EXIF counts before a raw EXIF profile, and that before XMP."""

    def __init__(self) -> None:
        self._exif: int | None = None
        self._raw_profile: int | None = None
        self._xmp: int | None = None

    @property
    def value(self) -> int:
        """The orientation as in EXIF, 1 (upright) to 8."""
        return self._exif or self._raw_profile or self._xmp or 1

    def read_exif(self, exif: bytes) -> None:
        """Read EXIF data, with or without their prefix; the first that have an orientation count."""
        self._exif = self._exif or _orientation_in_exif(exif)

    def read_raw_profile(self, profile: bytes) -> None:
        """Read EXIF data as ImageMagick writes them into PNG texts: a name, a length and hexadecimal digits."""
        lines = profile.split(b"\n")[3:]
        digits = b"".join(lines).replace(b"\r", b"").strip(b" \0")
        try:
            exif = binascii.unhexlify(digits[: len(digits) // 2 * 2])
        except binascii.Error:
            return
        self._raw_profile = self._raw_profile or _orientation_in_exif(exif)

    def read_xmp(self, xmp: bytes) -> None:
        """Read XMP data; the first that have an orientation count."""
        if self._xmp is None and (match := _XMP_ORIENTATION.search(xmp[:_MAX_XMP_BYTES])):
            self._xmp = int(match[1])


def _orientation_in_exif(exif: bytes) -> int | None:
    """The orientation, 1 (upright) to 8, in EXIF data; None if there is none or the data are corrupt.

    EXIF is a TIFF file: byte order, offset of the first directory, and there the number of entries and entries of 12
    bytes: tag, type, count, value (TIFF 6.0, section 2; Exif 2.32, section 4.6.4).
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                return int(value) if kind == _SHORT and 1 <= value <= 8 else None
    except struct.error:
        return None
    return None
