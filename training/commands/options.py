"""Option values: parses the texts of command line options that hold more than one value."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

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
    """Class names separated by commas, or the lines of the file that `text` names."""
    if (path := Path(text)).is_file():
        text = path.read_text(encoding="utf-8").strip().replace("\n", ",")
    return [label.strip() for label in text.split(",")]


def parse_named_paths(option: str, values: Sequence[str] | None) -> Iterator[tuple[str, Path]]:
    """(name, path) of each value of the form `NAME=PATH`."""
    for value in values or []:
        name, separator, path = value.partition("=")
        if not separator or not name or not path:
            raise DataError(option, f"'{value}' is not NAME=PATH", f"For example {option} signs=data/signs")
        yield name, Path(path)
