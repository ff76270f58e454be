"""Atomic checkpoints: a failed write leaves the previous checkpoint unchanged."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from training.errors import RunError

_REMEDY = "Free some disk space, then continue with --resume; the last whole checkpoint is kept"


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file in the same folder and renames it.

    Lightning writes to the system's temporary folder. If that is another file system, the checkpoint is copied over
    the previous one, and a full disk truncates it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:  # noqa: ARG002 - Lightning's signature
        """Write `checkpoint` to `path`. Raises RunError if it cannot be written."""
        target = Path(path)
        partial = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except (OSError, RuntimeError) as error:
            # torch.save raises RuntimeError when the file cannot be written.
            partial.unlink(missing_ok=True)
            raise RunError(str(target), f"the checkpoint cannot be written ({error})", _REMEDY) from error

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any | None = None,
        weights_only: bool | None = None,  # noqa: ARG002 - Lightning's signature
    ) -> dict[str, Any]:
        """Read the checkpoint at `path` without running code from it."""
        return read_checkpoint(Path(path), map_location or "cpu")


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The tensors and plain values of the checkpoint at `path`.

    A pickle can run any code when it is read. torch refuses everything but tensors and plain values here.

    Raises:
        RunError: The file is no checkpoint, or holds something else.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = f"is no checkpoint of tensors and plain values: {str(error).splitlines()[0]}"
        raise RunError(str(path), reason, "Train the stage again with --overwrite") from error
    return checkpoint


def require_disk_space(folder: Path, model: nn.Module, optimizer: str) -> None:
    """Raise RunError if `folder` has no room for two checkpoints of `model`.

    Args:
        folder: Where checkpoints will be written.
        model: The model to be trained.
        optimizer: The recipe's name of the optimizer. `sgd` keeps one value per weight, the others keep two.
    """
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    copies = 2 if optimizer == "sgd" else 3
    needed, free = 2 * copies * weights, shutil.disk_usage(folder).free
    if free < needed:
        reason = f"training needs {needed / 1e6:.1f} MB for checkpoints, its disk has {free / 1e6:.1f} MB left"
        raise RunError(str(folder), reason, "Free some disk space, or name another place with --run")
