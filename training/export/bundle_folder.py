"""The folder of a new bundle in the model repository; it appears only when it is complete."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training.errors import RunError


def new_bundle_path(models: Path, name: str, version: str, *, overwrite: bool) -> Path:
    """`models/<name>/<version>`; RunError if it exists and `overwrite` is off."""
    path = models / name / version
    if path.exists() and not overwrite:
        free = 1 + max((int(folder.name) for folder in path.parent.iterdir() if folder.name.isdecimal()), default=0)
        remedy = f"Give the new bundle another version, for example --version {free}, or replace this one: --overwrite"
        raise RunError(str(path), "exists", remedy)
    return path


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces `path` if the block succeeds and is deleted if it raises.

    After an error, the parent of `path` is deleted too if it is empty.
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
        # rmdir fails if the folder is not empty.
        with suppress(OSError):
            path.parent.rmdir()


def bundle_name(text: str) -> str:
    """A bundle name made from `text`: lower-case letters, digits, dots and dashes, 64 at most; `model` if none."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "model"
