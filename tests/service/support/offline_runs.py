"""Runs of `score-dataset`, and their output."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service import offline

ROOT = Path(__file__).parents[3]


def score(source: Path, output: Path, *flags: str | Path, model: str | Path) -> int:
    """Run in this process with one thread, and return the exit code."""
    fixed = ("--model", model, "--output", output, "--threads", "1", "--max-batch", "8", "--provider", "cpu")
    return offline.main([str(argument) for argument in (source, *fixed, *flags)])


def begin(source: Path, output: Path, *flags: str | Path, model: Path) -> subprocess.Popen[str]:
    """Start the same run as a separate process."""
    fixed = ("--model", model, "--output", output, "--threads", "1", "--max-batch", "8", "--provider", "cpu")
    command = [sys.executable, "-m", "service", "score-dataset", source, *fixed, *flags]
    return subprocess.Popen([str(argument) for argument in command], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def rows(output: Path) -> list[dict[str, Any]]:
    """Every row of an output folder, as a parquet reader returns it."""
    table: list[dict[str, Any]] = pq.read_table(output).to_pylist()
    return table


def parquet(path: Path, row_group_size: int = 1000, **columns: Sequence[object] | pa.Array) -> Path:
    """Write a parquet file."""
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path
