"""Option values: parses the texts of command line options that hold more than one value."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from datafiles import DataFileError, read_lines
from training.errors import DataError


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from `HxW`, or from one number for both."""
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise DataError("--size", f"'{text}' is no size", "Give HxW, for example 32x32")
    return cast(tuple[int, int], tuple(int(part) for part in (parts * 2)[:2]))


def parse_numbers(option: str, values: Sequence[str] | None) -> list[float]:
    """The numbers in `values`, each one number or several separated by commas."""
    try:
        return [float(number) for value in values or [] for number in value.split(",")]
    except ValueError as error:
        raise DataError(
            option, f"holds no numbers ({error})", "Give numbers separated by commas: 0.5,0.5,0.5"
        ) from error


def parse_labels(text: str) -> list[str]:
    """Class names separated by commas, or the lines of the file that `text` names, one name per line.

    Raises:
        DataError: The file cannot be read, or a name is empty or occurs twice.
    """
    path = Path(text)
    try:
        labels = [name.strip() for name in (read_lines(path) if path.is_file() else text.split(","))]
    except DataFileError as error:
        raise DataError(f"--labels {path}", error.reason, error.remedy) from error
    if not all(labels):
        raise DataError("--labels", "holds an empty name", "Give every class a name")
    if twice := [f"'{name}' {count} times" for name, count in Counter(labels).items() if count > 1]:
        remedy = "Tell the classes apart, for example 'crane (bird)' and 'crane (machine)'"
        raise DataError("--labels", f"names {', '.join(twice)}", remedy)
    return labels


def parse_named_paths(option: str, values: Sequence[str] | None) -> dict[str, Path]:
    """The path of each name, from values `NAME=PATH`; DataError for other values and for repeated names."""
    paths: dict[str, Path] = {}
    for value in values or []:
        name, separator, path = value.partition("=")
        if not separator or not name or not path:
            raise DataError(option, f"'{value}' is not NAME=PATH", f"For example {option} signs=data/signs")
        if name in paths:
            reason = f"gives {name} to {paths[name]} and to {path}"
            raise DataError(option, reason, "Give each set a name of its own")
        paths[name] = Path(path)
    return paths
