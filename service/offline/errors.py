"""Why a collection cannot be scored: a closed set, each with the remedy in its message."""

from pathlib import Path
from typing import ClassVar


class OfflineError(Exception):
    """A run cannot begin or go on; the message names what is wrong and what to do."""

    exit_code: ClassVar[int] = 2


class ModelUnusable(OfflineError):
    """There is no such model, or it does not take what the source holds."""


class SourceUnusable(OfflineError):
    """The source is missing, of no known kind, without the column that was asked for, damaged, or it changed."""


class OutputRefused(OfflineError):
    """The output folder holds something else; nothing in it was touched."""


class OutputUnwritable(OfflineError):
    """The output folder cannot be written."""

    exit_code = 1


class ClusterUnavailable(OfflineError):
    """Ray is not installed, its cluster cannot be reached, or it failed."""

    exit_code = 1


class EngineBroken(OfflineError):
    """The engine fails on every input of a batch, so that the fault is not an input's."""

    exit_code = 1


def changed(path: str) -> SourceUnusable:
    """The source does not have the inputs any more that were counted."""
    return SourceUnusable(f"{path} changed while it was read. Run again with --overwrite once it is complete.")


def cannot_read(path: Path, error: Exception) -> SourceUnusable:
    """`error` came up while reading `path`."""
    return SourceUnusable(f"{path} cannot be read: {error}. Repair it, and run the same command with --overwrite.")
