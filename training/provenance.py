"""Provenance: what a bundle says of its own making."""

import hashlib
import subprocess
from importlib.metadata import version
from pathlib import Path

from bundle import DataFingerprint, Training
from training.data import Images
from training.run import Run

_PACKAGES = ("torch", "lightning", "datasets", "numpy", "pillow", "onnx", "onnxruntime", "onnxscript")


def describe_training(run: Run, stage: str, data: dict[str, Images]) -> Training:
    """Recipe, data fingerprints by role, seed, objective, versions, hardware and time of the stages behind `stage`."""
    recipe = run.recipe
    chain = [stage]
    while (start := recipe.stages[chain[0]].start_from) in recipe.stages:
        chain.insert(0, str(start))
    records = [run.record(name) for name in chain]
    text = run.recipe_path.read_bytes()
    return Training(
        recipe=f"{recipe.name}.yaml",
        recipe_sha256=hashlib.sha256(text).hexdigest(),
        data=[
            DataFingerprint(
                role=role, name=images.name, source=Path(images.source).name, rows=len(images), sha256=images.sha256
            )
            for role, images in data.items()
        ],
        seed=recipe.seed,
        objective=recipe.stages[stage].objective.name,
        stage=stage,
        commit=_commit(),
        packages={name: version(name) for name in _PACKAGES},
        hardware=records[-1].hardware,
        seconds=round(sum(record.seconds for record in records), 1),
        started=records[0].started,
    )


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
