"""Checkpoints that are whole or not there: a full disk costs the newest one, never the one before it."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from training.errors import RunError

_REMEDY = "Free some disk space, then continue with --resume; the last whole checkpoint is kept"


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there in one step.

    Lightning's own way leads over the system's folder for temporary files: from another file system it is copied onto
    the last checkpoint, which a full disk then leaves cut off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:  # noqa: ARG002 - Lightning's signature
        """Write `checkpoint` to `path`. Raises RunError where it cannot be written."""
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except (OSError, RuntimeError) as error:
            # Torch reports what the file refuses as a RuntimeError of its own.
            part.unlink(missing_ok=True)
            raise RunError(str(target), f"the checkpoint cannot be written ({error})", _REMEDY) from error


def require_disk_space(folder: Path, model: nn.Module, optimizer: str) -> None:
    """Raise RunError now, not after the first epoch, where `folder` has no room for two checkpoints of `model`."""
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    copies = 2 if optimizer == "sgd" else 3
    needed, free = 2 * copies * weights, shutil.disk_usage(folder).free
    if free < needed:
        reason = f"training needs {needed / 1e6:.1f} MB for checkpoints, its disk has {free / 1e6:.1f} MB left"
        raise RunError(str(folder), reason, "Free some disk space, or name another place with --run")
