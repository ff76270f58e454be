"""Values: converts cells of a table to texts, images and keys."""

import json
import os
import stat
from pathlib import Path

from datafiles.errors import MISSING, Fault
from datafiles.lines import undecodable
from datafiles.table import Value

MAX_FILE_BYTES = 2**30
"""The size of the largest image file that is read into memory."""


def as_text(value: Value) -> str | Fault:
    """The text in a cell; the fault of a missing one, of one that is not Unicode, and of a number."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            where = f"byte {value[error.start]:#04x} at position {error.start}"
            return Fault("encoding", f"The text is not UTF-8: {where}.")
    if isinstance(value, str):
        return undecodable(value) or value
    if value is None:
        return MISSING
    return value if isinstance(value, Fault) else Fault("malformed", f"The value is no string, but {_kind(value)}.")


def as_image(value: Value, folder: Path) -> bytes | Path | Fault:
    """The encoded image in a cell, or the path of its file.

    Args:
        value: bytes, a path relative to `folder`, or the struct `{bytes, path}` of Hugging Face.
        folder: the folder of the table.
    """
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        value = data if data is not None else path
    if value is None or value == "":
        return MISSING
    if isinstance(value, bytes | Fault):
        return value
    if isinstance(value, str):
        return path_inside(folder, value)
    return Fault("malformed", f"The value is neither an image nor a path, but {_kind(value)}.")


def as_key(value: Value) -> str | None:
    """A cell as an identifier in UTF-8: strings as they are, other values as JSON."""
    if value is None or isinstance(value, Fault):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return printable_utf8(text)


def path_inside(folder: Path, name: str) -> Path | Fault:
    """The path of the file `name` in `folder`; the fault of a path, or of a link, that leads out of the folder."""
    # Spreadsheets from Windows have other separators.
    spellings = [name, name.replace("\\", "/")] if "\\" in name else [name]
    for spelling in spellings:
        try:
            path = (folder / spelling).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            continue
        if not path.is_relative_to(folder.resolve()):
            return Fault("file", f"The path {printable(name)!r} leads out of the table's folder.")
        return path
    return Fault("file", f"There is no file {printable(name)!r} in the table's folder.")


def read_file(path: Path) -> bytes | Fault:
    """The bytes of a regular file, or the fault why it cannot be read."""
    try:
        # Without blocking: a named pipe may have no writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return Fault("file", "It is no regular file.")
            if status.st_size > MAX_FILE_BYTES:
                return Fault("file", f"The file has more than {MAX_FILE_BYTES:,} bytes.")
            return file.read()
    except OSError as error:
        return Fault("file", f"The file cannot be read: {error.strerror or error}")


def printable(name: str) -> str:
    """A file's name for messages and metadata: in UTF-8, and without characters that would control a terminal."""
    name = os.fsencode(name).decode("utf-8", "backslashreplace") if not _is_utf8(name) else name
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in name)


def printable_utf8(text: str) -> str:
    """The text with question marks instead of surrogates."""
    return text if _is_utf8(text) else text.encode("utf-8", "replace").decode()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Value) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"of the type {type(value).__name__}")
