"""Export: a finished stage becomes a bundle, whole or not at all, and only if the graph scores as the model does."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from bundle import (
    Calibration,
    CalibrationSpec,
    Evaluation,
    Parity,
    ScoreOutput,
    save_calibrations,
    seal_bundle,
)
from training.calibrate import anomalies
from training.data import Images
from training.errors import RunError
from training.onnx_graph import check_parity, run_graph, write_graph
from training.provenance import describe_training
from training.recipe import Recipe
from training.run import Run
from training.score_heads import ScoredClassifier
from training.scoring import score_images

_CALIBRATION = "calibration.npz"
_GRAPH = "model.onnx"
_SAMPLE = "sample.png"
"""One real input, for the first request that somebody makes."""


def bundle_path(recipe: Recipe, models: Path, *, version: int | None = None, overwrite: bool) -> Path:
    """`models/<name>/<version>`, by default the recipe's; RunError when it exists and `overwrite` is off."""
    path = models / recipe.name / str(version or recipe.export.version)
    if path.exists() and not overwrite:
        raise RunError(str(path), "exists", "Give the new bundle another --version, or replace this one: --overwrite")
    return path


def export_bundle(
    run: Run,
    model: ScoredClassifier,
    *,
    calibration: Images,
    samples: Images,
    evaluation: Evaluation | None,
    path: Path,
) -> None:
    """Write the bundle `path`, `<name>/<version>`, in place of what is there.

    The calibration is taken anew through the ONNX graph, so that p-values compare what serving computes with what
    serving would have computed. `samples` are further real inputs for the parity check. Raises ParityError.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _fill(run, model, partial, path.name, calibration, samples, evaluation)
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(
    run: Run,
    model: ScoredClassifier,
    path: Path,
    version: str,
    calibration: Images,
    samples: Images,
    evaluation: Evaluation | None,
) -> None:
    recipe, spec = run.recipe, run.recipe.input
    write_graph(model, (spec.height, spec.width, spec.channels), path / _GRAPH)
    differences: dict[str, float] = {}
    for images in (calibration, samples):
        outputs = run_graph(path / _GRAPH, images.x)
        found = check_parity(score_images(model, images.x), outputs, recipe.export.tolerance)
        differences = {name: max(value, differences.get(name, 0.0)) for name, value in found.items()}
        if images is calibration:
            scores = anomalies(outputs, model.scores)
    save_calibrations(path / _CALIBRATION, {name: Calibration.from_scores(values) for name, values in scores.items()})
    Image.fromarray(np.squeeze(samples.x[np.zeros(1, dtype=np.int64)][0])).save(path / _SAMPLE)
    if run.report_path.exists():
        shutil.copytree(run.report_path, path / "report")
    shutil.copy(run.recipe_path, path / "recipe.yaml")
    seal_bundle(
        path,
        {
            "name": recipe.name,
            "version": version,
            "description": recipe.description,
            "modality": "image",
            "task": "classification",
            "input": spec,
            "labels": list(calibration.labels),
            "scores": [ScoreOutput(name=name, output=name) for name in model.scores],
            "default_score": recipe.export.default_score,
            "model": _GRAPH,
            "calibration": CalibrationSpec(
                file=_CALIBRATION, n=len(calibration), source=calibration.name, alpha=recipe.export.alpha
            ),
            "training": describe_training(run, recipe.export.stage),
            "evaluation": evaluation,
            "parity": Parity(
                tolerance=recipe.export.tolerance,
                max_difference=differences,
                inputs=len(calibration) + len(samples),
            ),
            "created": datetime.now(UTC).replace(microsecond=0),
        },
    )


def sample_of(images: Images, size: int) -> Images:
    """Up to `size` images spread over the set."""
    rows = np.linspace(0, len(images) - 1, min(size, len(images)), dtype=np.int64)
    return images.rows(np.unique(rows))
