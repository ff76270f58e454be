"""Export: a finished stage becomes a bundle, whole or not at all, and only if the graph scores as the model does."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from bundle import (
    MANIFEST_NAME,
    Calibration,
    CalibrationSpec,
    Evaluation,
    Manifest,
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
from training.run import Run
from training.score_heads import ScoredClassifier
from training.scoring import score_images

_CALIBRATION = "calibration.npz"
_GRAPH = "model.onnx"
_SAMPLE = "sample.png"
"""One real input, for the first request that somebody makes."""


def export_bundle(
    run: Run,
    model: ScoredClassifier,
    *,
    calibration: Images,
    samples: Images,
    data: Mapping[str, Images],
    evaluation: Evaluation | None,
    models: Path,
    overwrite: bool,
) -> Path:
    """Write `models/<name>/<version>` and return it.

    The calibration is taken anew through the ONNX graph, so that p-values compare what serving computes with what
    serving would have computed. `samples` are further real inputs for the parity check; `data` the sets by role that
    the provenance names. Raises ParityError, or RunError when the version exists and `overwrite` is off.
    """
    recipe = run.recipe
    path = models / recipe.name / recipe.export.version
    if path.exists() and not overwrite:
        remedy = "Give the new bundle the next version (export.version=2), or replace this one with --overwrite"
        raise RunError(str(path), "exists", remedy)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = _fill(run, model, partial, calibration, samples, data, evaluation)
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    assert (path / MANIFEST_NAME).exists(), manifest
    return path


def _fill(
    run: Run,
    model: ScoredClassifier,
    path: Path,
    calibration: Images,
    samples: Images,
    data: Mapping[str, Images],
    evaluation: Evaluation | None,
) -> Manifest:
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
    return seal_bundle(
        path,
        {
            "name": recipe.name,
            "version": recipe.export.version,
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
            "training": describe_training(run, recipe.export.stage, dict(data)),
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
