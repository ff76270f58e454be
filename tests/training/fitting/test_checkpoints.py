"""Checkpoints on a full disk: the previous one is kept, and training is refused if the disk is too small."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from training.errors import RunError
from training.fitting.checkpoints import AtomicCheckpoints, read_checkpoint, require_disk_space


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Limits files to 10 kB: writing more fails as it does on a full disk."""
    original = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, original[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, original)


def test_a_checkpoint_that_does_not_fit_leaves_the_previous_one_unchanged(tmp_path: Path, small_disk: None) -> None:
    path = tmp_path / "stage" / "last.ckpt"
    checkpoints = AtomicCheckpoints()
    checkpoints.save_checkpoint({"weights": torch.ones(10)}, path)
    with pytest.raises(RunError, match=r"last\.ckpt: the checkpoint cannot be written .* Free some disk space"):
        checkpoints.save_checkpoint({"weights": torch.ones(10_000)}, path)
    assert torch.equal(torch.load(path)["weights"], torch.ones(10))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_disk_too_small_for_the_model_is_refused_before_training(tmp_path: Path) -> None:
    with torch.device("meta"):
        huge = nn.Linear(10_000_000, 10_000_000, bias=False)
    with pytest.raises(RunError, match=r"needs 1600000000\.0 MB for checkpoints, its disk has .* MB left"):
        require_disk_space(tmp_path, huge, "sgd")
    require_disk_space(tmp_path, nn.Linear(10, 10), "adam")


class _Code:
    """Creates the file `path` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def test_a_checkpoint_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "extra": _Code(tmp_path / "ran")}, path)
    with pytest.raises(RunError, match="no checkpoint of tensors and plain values"):
        read_checkpoint(path)
    # Lightning resumes through this class.
    with pytest.raises(RunError, match="no checkpoint of tensors and plain values"):
        AtomicCheckpoints().load_checkpoint(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(RunError, match="no checkpoint"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()
