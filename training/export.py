"""Export: a finished stage becomes a bundle, whole or not at all, and only if the graph scores as the model does."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bundle import (
    Calibration,
    CalibrationSpec,
    Evaluation,
    ImageInput,
    LikelihoodSpec,
    Parity,
    ScoreOutput,
    TextInput,
    save_calibrations,
    seal_bundle,
)
from training.bundle_folder import bundle_place, whole_folder
from training.calibrate import anomalies
from training.data import Examples
from training.onnx_graph import check_parity, run_graph, write_graph
from training.provenance import describe_training
from training.recipe import Recipe, TextPlan
from training.run import Run
from training.score_heads import ScoredModel
from training.scoring import score_inputs

_CALIBRATION = "calibration.npz"
_GRAPH = "model.onnx"
_TOKENIZER = "tokenizer.json"
_EXAMPLE = 8
"""Inputs that the exporter traces the model with."""


def bundle_path(recipe: Recipe, models: Path, *, version: int | None = None, overwrite: bool) -> Path:
    """`models/<name>/<version>`, by default the recipe's; RunError when it exists and `overwrite` is off."""
    return bundle_place(models, recipe.name, str(version or recipe.export.version), overwrite=overwrite)


def export_bundle(
    run: Run,
    model: ScoredModel,
    *,
    calibration: Examples,
    samples: Examples,
    write_sample: Callable[[Path], None],
    evaluation: Evaluation | None,
    path: Path,
) -> None:
    """Write the bundle `path`, `<name>/<version>`, in place of what is there.

    The calibration is taken anew through the ONNX graph, so that p-values compare what serving computes with what
    serving would have computed. `samples` are further real inputs for the parity check; `write_sample` puts one, for
    somebody's first request, into the folder it is given. Raises ParityError.
    """
    with whole_folder(path) as partial:
        write_sample(partial)
        _fill(run, model, partial, path.name, calibration, samples, evaluation)


def _fill(
    run: Run,
    model: ScoredModel,
    path: Path,
    version: str,
    calibration: Examples,
    samples: Examples,
    evaluation: Evaluation | None,
) -> None:
    recipe = run.recipe
    write_graph(model, calibration.x[np.arange(_EXAMPLE)], path / _GRAPH)
    differences: dict[str, float] = {}
    for examples in (calibration, samples):
        outputs = run_graph(path / _GRAPH, examples.x, model.model.prepare)
        found = check_parity(score_inputs(model, examples.x), outputs, recipe.export.tolerance)
        differences = {name: max(value, differences.get(name, 0.0)) for name, value in found.items()}
        if examples is calibration:
            scores = anomalies(outputs, model.scores)
    save_calibrations(path / _CALIBRATION, {name: Calibration.from_scores(values) for name, values in scores.items()})
    spec: ImageInput | TextInput
    if isinstance(recipe.input, TextPlan):
        shutil.copy(run.tokenizer_path, path / _TOKENIZER)
        spec = TextInput(tokenizer=_TOKENIZER, max_tokens=recipe.export.max_tokens or recipe.input.max_tokens)
    else:
        spec = recipe.input
    if run.report_path.exists():
        shutil.copytree(run.report_path, path / "report")
    shutil.copy(run.recipe_path, path / "recipe.yaml")
    seal_bundle(
        path,
        {
            "name": recipe.name,
            "version": version,
            "description": recipe.description,
            "modality": spec.kind,
            "task": recipe.task,
            "input": spec,
            "labels": list(calibration.labels) if recipe.task == "classification" else [],
            "scores": [ScoreOutput(name=name, output=name) for name in model.scores],
            "default_score": recipe.export.default_score,
            "likelihood": _likelihood(recipe, model),
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


def _likelihood(recipe: Recipe, model: ScoredModel) -> LikelihoodSpec | None:
    if model.parts is None:
        return None
    if isinstance(recipe.input, TextPlan):
        how = recipe.likelihood
        return LikelihoodSpec(per=recipe.input.unit, counts_end=how.count_end, parts=model.parts)
    return LikelihoodSpec(per=recipe.likelihood.per, parts=model.parts)


def sample_of(examples: Examples, size: int) -> Examples:
    """Up to `size` examples spread over the set."""
    rows = np.linspace(0, len(examples) - 1, min(size, len(examples)), dtype=np.int64)
    return examples.rows(np.unique(rows))
