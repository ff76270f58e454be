"""The bundle's folder: its place in the model repository, filled whole or not at all."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training.errors import RunError


def bundle_place(models: Path, name: str, version: str, *, overwrite: bool) -> Path:
    """`models/<name>/<version>`; RunError when it exists and `overwrite` is off."""
    path = models / name / version
    if path.exists() and not overwrite:
        raise RunError(str(path), "exists", "Give the new bundle another --version, or replace this one: --overwrite")
    return path


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` when the block ends well and is gone when it does not.

    So is the folder above it where nothing else is in it.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        # Refused where anything is in it.
        with suppress(OSError):
            path.parent.rmdir()


def name_from(text: str) -> str:
    """`text` as a bundle's name: lower case letters, digits, dots and dashes, 64 at most; `model` if none is left."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "model"
