"""Why a collection cannot be scored: a closed set, each with the remedy in its message."""

from pathlib import Path


class OfflineError(Exception):
    """A run cannot begin or go on; the message names what is wrong and what to do."""


class SourceUnusable(OfflineError):
    """The source is missing, of no known kind, without the column that was asked for, or damaged."""


class ModelUnusable(OfflineError):
    """There is no such model, or it does not take what the source holds."""


class OutputRefused(OfflineError):
    """The output folder holds something else; nothing in it was touched."""


class ClusterUnavailable(OfflineError):
    """Ray is not installed, its cluster cannot be reached, or it failed."""


class EngineBroken(OfflineError):
    """The engine fails on every input of a batch, so that the fault is not an input's."""


def cannot_read(path: Path, error: Exception) -> SourceUnusable:
    """`error` came up while reading `path`."""
    return SourceUnusable(f"{path} cannot be read: {error}. Repair the file; parts already written are kept.")
