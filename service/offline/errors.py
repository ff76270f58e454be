"""The errors of offline scoring: a closed set, each with a remedy in its message."""

from typing import ClassVar

from datafiles import DataFileError


class OfflineError(Exception):
    """A run cannot start or continue; the message names the problem and the remedy."""

    exit_code: ClassVar[int] = 2


class ModelUnusable(OfflineError):
    """The model does not exist, or does not take the inputs of the source."""


class SourceUnusable(OfflineError):
    """The source is missing, damaged, of an unsupported kind, lacks a requested column, or has changed."""


class OutputRefused(OfflineError):
    """The output folder holds other files; none of them was changed."""


class OutputUnwritable(OfflineError):
    """The output folder cannot be written."""

    exit_code = 1


class ClusterUnavailable(OfflineError):
    """Ray is not installed, its cluster cannot be reached, or it failed."""

    exit_code = 1


class EngineBroken(OfflineError):
    """The engine fails on every input of a batch, so the inputs are not the cause."""

    exit_code = 1


def source_changed(path: str) -> SourceUnusable:
    """Return the error of a source whose number of inputs has changed since it was opened."""
    return SourceUnusable(f"{path} changed while it was read. Run again with --overwrite once it is complete.")


def unreadable_source(error: DataFileError) -> SourceUnusable:
    """Return the error of a source that cannot be read because of `error`."""
    return SourceUnusable(f"{error} Then run the same command with --overwrite.")
