"""Prints figures as a table and writes them as JSON with the machine and the package versions."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from training.fitting.hardware import processor_name

FOLDER = Path(__file__).parent / "results"
CONSOLE = Console()


def report(name: str, figures: Mapping[str, Any], packages: tuple[str, ...]) -> None:
    """Print `figures` and write them to `results/<name>.json`.

    Args:
        name: The name of the result.
        figures: Values by identifiers that end in their unit; mappings may be nested.
        packages: The packages whose versions the result states.
    """
    table = Table("figure", "value", title=name)
    for key, value in _flattened(figures):
        table.add_row(key, f"{value:.3f}" if isinstance(value, float) else str(value))
    CONSOLE.print(table)
    write_result(name, figures, {package: version(package) for package in packages})


def _flattened(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key} ")
        else:
            yield prefix + key, value


def write_result(name: str, figures: Mapping[str, Any], versions: Mapping[str, Any]) -> None:
    """Write `figures` and the `versions` of the measured packages to `results/<name>.json`."""
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor_name(), "cores": os.cpu_count(), "python": platform.python_version()},
        "packages": dict(versions),
        "figures": dict(figures),
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
