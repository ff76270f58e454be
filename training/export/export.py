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
    Precision,
    ScoreOutput,
    TextInput,
    save_calibrations,
    seal_bundle,
)
from training.data import Examples
from training.export.bundle_folder import atomic_folder, bundle_place
from training.export.onnx_graph import check_parity, run_graph, write_graph
from training.export.provenance import describe_training
from training.models.score_heads import ScoredModel
from training.recipe import Recipe, TextConfig
from training.run import Run
from training.scoring.calibrate import anomalies
from training.scoring.score import Outputs, score_inputs

GRAPH = "model.onnx"
SAMPLES = 1000
"""Test inputs that a graph is held against torch on, besides the calibration split."""

_LONGEST_NAME = 64
_CALIBRATION = "calibration.npz"
_TOKENIZER = "tokenizer.json"
_EXAMPLE = 8
"""Inputs that the exporter traces the model with."""


def bundle_path(
    recipe: Recipe, models: Path, *, version: int | None = None, precision: Precision = "fp32", overwrite: bool
) -> Path:
    """`models/<name>/<version>`, by default the recipe's; a lower precision's name ends with it.

    RunError when it exists and `overwrite` is off.
    """
    suffix = "" if precision == "fp32" else f"-{precision}"
    name = recipe.name[: _LONGEST_NAME - len(suffix)] + suffix
    return bundle_place(models, name, str(version or recipe.export.version), overwrite=overwrite)


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
    with atomic_folder(path) as partial:
        write_sample(partial)
        outputs, parity = write_checked_graph(run, model, partial / GRAPH, calibration, samples)
        if run.report_path.exists():
            shutil.copytree(run.report_path, partial / "report")
        seal_run(
            run,
            model,
            partial,
            path,
            calibration=calibration,
            outputs=outputs,
            evaluation=evaluation,
            parity=parity,
        )


def write_checked_graph(
    run: Run, model: ScoredModel, graph: Path, calibration: Examples, samples: Examples
) -> tuple[Outputs, Parity]:
    """Write `graph`, what it makes of `calibration`, and how near it is to torch there and on `samples`.

    Raises ParityError where that is not near enough.
    """
    tolerance = run.recipe.export.tolerance
    write_graph(model, calibration.x[np.arange(_EXAMPLE)], graph)
    outputs, further = (run_graph(graph, examples.x, model.model.prepare) for examples in (calibration, samples))
    differences = check_parity(score_inputs(model, calibration.x), outputs, tolerance)
    for name, found in check_parity(score_inputs(model, samples.x), further, tolerance).items():
        differences[name] = max(found, differences[name])
    return outputs, Parity(tolerance=tolerance, max_difference=differences, inputs=len(calibration) + len(samples))


def seal_run(
    run: Run,
    model: ScoredModel,
    folder: Path,
    path: Path,
    *,
    calibration: Examples,
    outputs: Outputs,
    evaluation: Evaluation | None,
    precision: Precision = "fp32",
    parity: Parity | None = None,
) -> None:
    """Make `folder`, which holds the graph and the report, the bundle that is to be at `path`.

    `outputs` is what that graph makes of `calibration`.
    """
    recipe = run.recipe
    scores = anomalies(outputs, model.scores)
    save_calibrations(folder / _CALIBRATION, {name: Calibration.from_scores(values) for name, values in scores.items()})
    spec: ImageInput | TextInput
    if isinstance(recipe.input, TextConfig):
        shutil.copy(run.tokenizer_path, folder / _TOKENIZER)
        spec = TextInput(tokenizer=_TOKENIZER, max_tokens=recipe.export.max_tokens or recipe.input.max_tokens)
    else:
        spec = recipe.input
    shutil.copy(run.recipe_path, folder / "recipe.yaml")
    seal_bundle(
        folder,
        {
            "name": path.parent.name,
            "version": path.name,
            "description": recipe.description,
            "modality": spec.kind,
            "task": recipe.task,
            "input": spec,
            "labels": list(calibration.labels) if recipe.task == "classification" else [],
            "scores": [ScoreOutput(name=name, output=name) for name in model.scores],
            "default_score": recipe.export.default_score,
            "likelihood": _likelihood(recipe, model),
            "model": GRAPH,
            "precision": precision,
            "calibration": CalibrationSpec(
                file=_CALIBRATION, n=len(calibration), source=calibration.name, alpha=recipe.export.alpha
            ),
            "training": describe_training(run, recipe.export.stage),
            "evaluation": evaluation,
            "parity": parity,
            "created": datetime.now(UTC).replace(microsecond=0),
        },
    )


def _likelihood(recipe: Recipe, model: ScoredModel) -> LikelihoodSpec | None:
    if model.parts is None:
        return None
    if isinstance(recipe.input, TextConfig):
        how = recipe.likelihood
        return LikelihoodSpec(per=recipe.input.unit, counts_end=how.count_end, parts=model.parts)
    return LikelihoodSpec(per=recipe.likelihood.per, parts=model.parts)


def sample_of(examples: Examples, size: int) -> Examples:
    """Up to `size` examples spread over the set."""
    rows = np.linspace(0, len(examples) - 1, min(size, len(examples)), dtype=np.int64)
    return examples.rows(np.unique(rows))
