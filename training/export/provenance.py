"""Provenance: what a bundle says of its own making."""

import hashlib
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter

from bundle import DataFingerprint, Training
from training.data import Examples
from training.errors import RunError
from training.recipe import Recipe
from training.run import Run

_PACKAGES = ("torch", "lightning", "datasets", "numpy", "pillow", "onnx", "onnxruntime", "onnxscript")


_Fingerprints = TypeAdapter(list[DataFingerprint])


def save_fingerprints(run: Run, data: Sequence[Examples]) -> None:
    """Note in the run directory which sets it is trained, calibrated and tested on; each one's name is its role."""
    found = [
        DataFingerprint(
            role=images.name,
            name=Path(images.source).stem,
            source=_origin(images),
            rows=len(images),
            sha256=images.sha256,
        )
        for images in data
    ]
    run.data_path.write_bytes(_Fingerprints.dump_json(found, indent=2))


def describe_training(run: Run, stage: str) -> Training:
    """Recipe, data fingerprints by role, seed, objective, versions, hardware and time of the stages behind `stage`."""
    recipe = run.recipe
    records = [run.record(name) for name in _behind(recipe, stage)]
    text = run.recipe_path.read_bytes()
    return Training(
        recipe=f"{recipe.name}.yaml",
        recipe_sha256=hashlib.sha256(text).hexdigest(),
        data=_saved_fingerprints(run),
        seed=recipe.seed,
        objective=recipe.stages[stage].objective.name,
        stage=stage,
        commit=_commit(),
        packages={name: version(name) for name in _PACKAGES},
        hardware=records[-1].hardware,
        seconds=round(sum(record.seconds for record in records), 1),
        started=records[0].started,
    )


def _behind(recipe: Recipe, stage: str) -> list[str]:
    """The stages that `stage` starts from, directly or not, and itself, in their order."""
    found = {stage}
    for name in reversed(list(recipe.stages)):
        if name in found:
            found.update(recipe.stages[name].starts)
    return [name for name in recipe.stages if name in found]


def _origin(images: Examples) -> str:
    """The last two parts of where a set is: what tells it apart, and nothing of the machine it was read on."""
    return "/".join(Path(images.source).parts[-2:])


def _saved_fingerprints(run: Run) -> list[DataFingerprint]:
    try:
        return _Fingerprints.validate_json(run.data_path.read_bytes())
    except OSError as error:
        remedy = "Run `fit RECIPE --resume`, which notes it without training again"
        raise RunError(str(run.data_path), "is missing: what was trained on is not known", remedy) from error


def _commit() -> str | None:
    """The commit of this source tree, None where it is installed elsewhere than in its own repository."""
    here = Path(__file__)
    try:
        for command in (["git", "ls-files", "--error-unmatch", here.name], ["git", "rev-parse", "HEAD"]):
            found = subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
