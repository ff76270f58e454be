"""Snapshots of the repository's folder, which show changes without opening any file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle import MANIFEST_NAME

TRAFFIC_NAME = "traffic.yaml"


class RepositoryError(Exception):
    """There is nothing to serve; the message names the folder, each reason, and the remedy."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an entry's files: relative path, times of modification and of change of status (ns), size, inode.

    Two snapshots are equal unless a file was written, replaced, added or removed in between, or became readable. A copy
    that preserves the time of modification is seen by the time of change of status.
    """

    files: tuple[tuple[str, int, int, int, int], ...]

    @property
    def has_manifest(self) -> bool:
        """Whether there is a manifest. An export writes the manifest last, so a folder without one is incomplete."""
        return any(name == MANIFEST_NAME for name, *_ in self.files)


def scan(root: Path) -> dict[str, Snapshot]:
    """Take a snapshot of each entry of the repository.

    Entries are `traffic.yaml`, then in the order of their names the bundles, `<name>/<version>`, and the misplaced
    bundles, `<name>`, whose manifest lies one level too high.

    Args:
        root: The repository's folder.

    Returns:
        The snapshots by entry.

    Raises:
        RepositoryError: `root` is not a folder.
    """
    if not root.is_dir():
        raise RepositoryError(
            f"The model repository {str(root)!r} is not a folder. Set OOD_MODELS (or --models) to a folder of "
            "<name>/<version>/ bundles."
        )
    entries: dict[str, Snapshot] = {}
    if (root / TRAFFIC_NAME).is_file():
        entries[TRAFFIC_NAME] = Snapshot((_file_state(root / TRAFFIC_NAME, TRAFFIC_NAME),))
    for model in _folders(root):
        if (model / MANIFEST_NAME).exists():
            entries[model.name] = Snapshot((_file_state(model / MANIFEST_NAME, MANIFEST_NAME),))
        for version in _folders(model):
            entries[f"{model.name}/{version.name}"] = snapshot_of(version)
    return entries


def snapshot_of(folder: Path) -> Snapshot:
    """Take a snapshot of all files below `folder`."""
    files = [
        _file_state(Path(parent) / name, os.path.relpath(Path(parent) / name, folder))
        for parent, _, names in os.walk(folder)
        for name in names
    ]
    return Snapshot(tuple(sorted(files)))


def model_of(entry: str) -> str:
    """The name of the model that `entry` belongs to."""
    return entry.partition("/")[0]


def is_bundle(entry: str) -> bool:
    """Whether `entry` is a bundle at its proper level, `<name>/<version>`."""
    return "/" in entry


def _file_state(file: Path, name: str) -> tuple[str, int, int, int, int]:
    try:
        status = file.stat()
    except OSError:
        # The file vanished between two system calls, or is a dangling link.
        return name, 0, 0, 0, 0
    return name, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _folders(path: Path) -> Iterator[Path]:
    """The folders in `path` by name, without hidden ones, which belong to version control or mounted volumes."""
    try:
        children = sorted(path.iterdir())
    except FileNotFoundError:
        return
    yield from (child for child in children if child.is_dir() and not child.name.startswith((".", "_")))
