"""Results: printed as a table, kept as JSON with the machine and the versions that they were taken on."""

import json
import os
import platform
from collections.abc import Mapping
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
    """Print `figures` and write them to `results/<name>.json`."""
    table = Table("figure", "value", title=name)
    for key, value in figures.items():
        table.add_row(key, f"{value:.3f}" if isinstance(value, float) else str(value))
    CONSOLE.print(table)
    keep(name, figures, {package: version(package) for package in packages})


def keep(name: str, figures: Mapping[str, Any], versions: Mapping[str, Any]) -> None:
    """Write `figures` to `results/<name>.json` with the `versions` of what was measured."""
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor_name(), "cores": os.cpu_count(), "python": platform.python_version()},
        "packages": dict(versions),
        "figures": dict(figures),
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
