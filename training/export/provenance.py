"""Provenance of a bundle: data, recipe, versions, hardware and time of its training."""

import hashlib
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter

from bundle import DataFingerprint, Training
from datafiles import printable
from training.data import Examples
from training.errors import RunError
from training.recipe import Recipe
from training.run import Run

_PACKAGES = ("torch", "lightning", "datasets", "numpy", "pillow", "onnx", "onnxruntime", "onnxscript")


_Fingerprints = TypeAdapter(list[DataFingerprint])


def save_fingerprints(run: Run, data: Sequence[Examples]) -> None:
    """Write fingerprints of the training, calibration and test sets to the run directory; a set's name is its role.

    Raises:
        RunError: A stage is trained on other data.
    """
    if any(run.checkpoint_path(name).exists() for name in run.recipe.stages):
        require_same_data(run, data)
        return
    run.data_path.write_bytes(_Fingerprints.dump_json([_fingerprint(examples) for examples in data], indent=2))


def require_same_data(run: Run, data: Sequence[Examples]) -> None:
    """Raise RunError unless `data` are the sets that the run's stages were trained with.

    The splits are drawn anew from changed data: calibration and test sets would hold examples that were trained on.
    """
    trained = {fingerprint.role: fingerprint for fingerprint in _load_fingerprints(run)}
    changed = []
    for now in map(_fingerprint, data):
        before = trained.get(now.role)
        if before is None or (before.rows, before.sha256) != (now.rows, now.sha256):
            difference = "other content" if before is None or before.rows == now.rows else f"{before.rows:,} before"
            changed.append(f"{now.role} ({now.rows:,} rows, {difference})")
    if changed:
        reason = f"its stages were trained on other data; these sets changed: {', '.join(changed)}"
        raise RunError(str(run.path), reason, "Restore the data, name another --run directory, or give --overwrite")


def _fingerprint(examples: Examples) -> DataFingerprint:
    return DataFingerprint(
        role=examples.name,
        name=printable(Path(examples.source).stem),
        source=_short_source(examples),
        rows=len(examples),
        sha256=examples.sha256,
        left_out=len(examples.left_out),
    )


def describe_training(run: Run, stage: str) -> Training:
    """The manifest's section on the training of `stage`; time is that of all stages it depends on."""
    recipe = run.recipe
    records = [run.record(name) for name in _with_ancestors(recipe, stage)]
    text = run.recipe_path.read_bytes()
    return Training(
        recipe=f"{recipe.name}.yaml",
        recipe_sha256=hashlib.sha256(text).hexdigest(),
        data=_load_fingerprints(run),
        seed=recipe.seed,
        objective=recipe.stages[stage].objective.name,
        stage=stage,
        commit=_commit(),
        packages={name: version(name) for name in _PACKAGES},
        hardware=records[-1].hardware,
        seconds=round(sum(record.seconds for record in records), 1),
        started=records[0].started,
    )


def _with_ancestors(recipe: Recipe, stage: str) -> list[str]:
    """`stage` and the stages that it starts from, directly or indirectly, in their order."""
    names = {stage}
    for name in reversed(list(recipe.stages)):
        if name in names:
            names.update(recipe.stages[name].starts)
    return [name for name in recipe.stages if name in names]


def _short_source(examples: Examples) -> str:
    """The last two parts of a set's path, which identify it without revealing paths of the machine."""
    return printable("/".join(Path(examples.source).parts[-2:]))


def _load_fingerprints(run: Run) -> list[DataFingerprint]:
    try:
        return _Fingerprints.validate_json(run.data_path.read_bytes())
    except OSError as error:
        reason = "is missing, so the data that the stages were trained on are not known"
        raise RunError(str(run.data_path), reason, "Restore it, or train again with --overwrite") from error


def _commit() -> str | None:
    """The commit of this source tree; None if the package is not installed from its own repository."""
    module = Path(__file__)
    try:
        for command in (["git", "ls-files", "--error-unmatch", module.name], ["git", "rev-parse", "HEAD"]):
            completed = subprocess.run(command, cwd=module.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return completed.stdout.strip()
