"""Lines of a text file of any usual encoding and line end, with the offsets of their first bytes."""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datafiles.errors import DataFileError, Fault

LONGEST_LINE = 2**24
"""The largest number of characters in a line: it bounds the memory for a file without line breaks."""

_CHUNK = 2**18
_SAMPLE = 4096
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r(?!\Z))")
_SAVE_AS_UTF8 = "Save it as UTF-8 (spreadsheets: 'CSV UTF-8')"


@dataclass(frozen=True)
class TextFile:
    """A text file and its encoding.

    Attributes:
        path: the file.
        encoding: `utf-8`, `utf-16-le` or `utf-16-be`.
        begin: the offset of the first byte after the byte order mark.
    """

    path: Path
    encoding: str
    begin: int

    @classmethod
    def open(cls, path: Path) -> "TextFile":
        """Determine the encoding of the file at `path`: by its byte order mark, else by the places of zero bytes.

        Raises:
            DataFileError: The file cannot be read, or is UTF-32.
        """
        try:
            with path.open("rb") as file:
                sample = file.read(_SAMPLE)
        except OSError as error:
            raise DataFileError(path, f"cannot be read: {error.strerror or error}", "Make it readable") from error
        if sample.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            raise DataFileError(path, "is UTF-32", _SAVE_AS_UTF8)
        for mark, encoding in (
            (codecs.BOM_UTF8, "utf-8"),
            (codecs.BOM_UTF16_LE, "utf-16-le"),
            (codecs.BOM_UTF16_BE, "utf-16-be"),
        ):
            if sample.startswith(mark):
                return cls(path, encoding, len(mark))
        return cls(path, _without_mark(sample), 0)

    def lines(self, begin: int = 0) -> Iterator[tuple[str | None, int]]:
        r"""Yield each line with its line end (`\n`, `\r\n` or `\r`) and the number of its bytes.

        None replaces a line that is longer than `LONGEST_LINE`. Bytes that are not UTF-8 become surrogates.

        Args:
            begin: the offset of a line's first byte.

        Raises:
            DataFileError: The file cannot be read, or ends within a character.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(max(begin, self.begin))
                yield from _split(self._decoded(file), self.size_of)
        except OSError as error:
            raise DataFileError(self.path, f"cannot be read: {error.strerror or error}", "Make it readable") from error
        except UnicodeDecodeError as error:
            reason = f"is not valid {self.encoding.upper()}: {error.reason}"
            raise DataFileError(self.path, reason, _SAVE_AS_UTF8) from error

    def size_of(self, text: str) -> int:
        """The number of bytes of decoded `text` in the file."""
        if text.isascii():
            return len(text) if self.encoding == "utf-8" else 2 * len(text)
        return len(text.encode(self.encoding, self._errors))

    @property
    def _errors(self) -> str:
        return "surrogateescape" if self.encoding == "utf-8" else "surrogatepass"

    def _decoded(self, file: BinaryIO) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self.encoding)(self._errors)
        while chunk := file.read(_CHUNK):
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)


def read_lines(path: Path) -> list[str]:
    """The lines of a small text file, such as a list of names, without their line ends and blank lines.

    Raises:
        DataFileError: The file cannot be read or decoded.
    """
    lines = []
    for number, (line, _) in enumerate(TextFile.open(path).lines(), 1):
        fault = too_long() if line is None else undecodable(line)
        if line is None or fault is not None:
            detail = "" if fault is None else fault.detail
            raise DataFileError(path, f"line {number} is no text: {detail}".rstrip("."), _SAVE_AS_UTF8)
        if line.strip():
            lines.append(line.rstrip("\r\n"))
    return lines


def undecodable(text: str) -> Fault | None:
    """The fault of a text with surrogates: bytes that are not UTF-8, or half of a character. None for other texts."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            where = f"byte {code - 0xDC00:#04x} after {error.start} characters"
            detail = f"The text is not UTF-8: {where}. If its file is Windows-1252 or Latin-1, save the file as UTF-8."
            return Fault("encoding", detail)
        return Fault("encoding", f"The text is not Unicode: half of a surrogate pair after {error.start} characters.")
    return None


def too_long() -> Fault:
    """The fault of a line that is longer than `LONGEST_LINE`."""
    return Fault("too-long", f"The line is longer than {LONGEST_LINE:,} characters.")


def _without_mark(sample: bytes) -> str:
    """The encoding of a file without a byte order mark: in UTF-16, most texts have a zero in every second byte."""
    pairs = len(sample) // 2
    even, odd = sample[0 : 2 * pairs : 2].count(0), sample[1 : 2 * pairs : 2].count(0)
    if max(even, odd) > 0.3 * pairs and min(even, odd) < 0.05 * pairs:
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


def _split(chunks: Iterator[str], size_of: Callable[[str], int]) -> Iterator[tuple[str | None, int]]:
    rest, skipped = "", 0
    for chunk in chunks:
        text = rest + chunk
        position = 0
        # A carriage return at the end may be the first half of a line end.
        for match in _LINE.finditer(text):
            line, position = match.group(), match.end()
            if skipped:
                yield None, skipped + size_of(line)
                skipped = 0
            else:
                yield line if len(line) <= LONGEST_LINE else None, size_of(line)
        rest = text[position:]
        if len(rest) > LONGEST_LINE or (skipped and len(rest) > 1):
            # The last character stays: it may be a carriage return.
            skipped += size_of(rest[:-1])
            rest = rest[-1:]
    # The text of the last chunk has no line end, or ends with a carriage return.
    if skipped:
        yield None, skipped + size_of(rest)
    elif rest:
        yield rest, size_of(rest)
