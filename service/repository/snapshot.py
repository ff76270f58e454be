"""What lies in the repository's folder, and whether it changed since the last look: no file is opened."""

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
    """Of every file below a place, what differs once it was written or replaced. Equal states: nothing changed."""

    files: tuple[tuple[str, int, int, int], ...]

    @property
    def has_manifest(self) -> bool:
        """Whether there is a manifest, which an export writes last: without one it is no bundle yet."""
        return any(name == MANIFEST_NAME for name, *_ in self.files)


def scan(root: Path) -> dict[str, Snapshot]:
    """The state of each `<name>/<version>` below `root`, of `<name>` where a bundle is misplaced, of `traffic.yaml`.

    In the order of names. Raises `RepositoryError` where `root` is no folder.
    """
    if not root.is_dir():
        raise RepositoryError(
            f"The model repository {str(root)!r} is not a folder. Set OOD_MODELS (or --models) to a folder of "
            "<name>/<version>/ bundles."
        )
    found: dict[str, Snapshot] = {}
    if (root / TRAFFIC_NAME).is_file():
        found[TRAFFIC_NAME] = Snapshot((_entry(root / TRAFFIC_NAME, TRAFFIC_NAME),))
    for model in _folders(root):
        if (model / MANIFEST_NAME).exists():
            found[model.name] = Snapshot((_entry(model / MANIFEST_NAME, MANIFEST_NAME),))
        for version in _folders(model):
            found[f"{model.name}/{version.name}"] = snapshot_of(version)
    return found


def snapshot_of(folder: Path) -> Snapshot:
    """The state of all files below `folder`."""
    files = [
        _entry(Path(place) / name, os.path.relpath(Path(place) / name, folder))
        for place, _, names in os.walk(folder)
        for name in names
    ]
    return Snapshot(tuple(sorted(files)))


def _entry(file: Path, name: str) -> tuple[str, int, int, int]:
    try:
        status = file.stat()
    except OSError:
        # Gone between two system calls, or a link to nothing: a state of its own.
        return name, 0, 0, 0
    return name, status.st_mtime_ns, status.st_size, status.st_ino


def _folders(path: Path) -> Iterator[Path]:
    # report/ and the like lie inside versions; hidden folders belong to version control and mounted volumes.
    try:
        children = sorted(path.iterdir())
    except FileNotFoundError:
        return
    yield from (child for child in children if child.is_dir() and not child.name.startswith((".", "_")))
