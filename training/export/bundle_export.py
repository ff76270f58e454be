"""Export of a finished stage as a bundle, after checking that its ONNX graph gives the scores of the torch model."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from bundle import (
    COMBINED,
    CalibrationSpec,
    Evaluation,
    EvidenceSpec,
    ImageInput,
    LikelihoodSpec,
    NeighboursSpec,
    Parity,
    Precision,
    ScoreOutput,
    TextInput,
    save_calibrations,
    seal_bundle,
)
from training.backbones import join_head, open_backbone
from training.data import Examples
from training.data.token_ids import text_batch
from training.evaluation import DefaultScore
from training.export.bundle_folder import atomic_folder, new_bundle_path
from training.export.evidence import evidence_of, with_evidence
from training.export.graph_evidence import add_evidence
from training.export.onnx_graph import check_parity, run_graph, write_graph
from training.export.provenance import describe_training
from training.export.sample_scores import sample_scores
from training.models.neighbours import DISTANCES, NEIGHBOURS
from training.models.score_heads import ScoredClassifier, ScoredModel
from training.recipe import Recipe, TextConfig
from training.run import Run
from training.scoring.batch_scoring import Outputs, score_inputs
from training.scoring.calibration import calibrations_from

GRAPH = "model.onnx"
REFERENCES = "references.json"
"""The file with the training examples that inputs are compared with."""
SAMPLES = 1000
"""Test inputs, besides the calibration split, on which a graph is compared with torch."""

_MAX_NAME_LENGTH = 64
_CALIBRATION = "calibration.npz"
_TOKENIZER = "tokenizer.json"
TRACED_INPUTS = 8
"""Inputs in the batch that the exporter traces the model with."""


def recipe_bundle_path(
    recipe: Recipe, models: Path, *, version: int | None = None, precision: Precision = "fp32", overwrite: bool
) -> Path:
    """The path of the recipe's bundle, `models/<name>/<version>`; in lower precision the name ends with `-<precision>`.

    Raises RunError if it exists and `overwrite` is off.
    """
    suffix = "" if precision == "fp32" else f"-{precision}"
    name = recipe.name[: _MAX_NAME_LENGTH - len(suffix)] + suffix
    return new_bundle_path(models, name, str(version or recipe.export.version), overwrite=overwrite)


def export_bundle(
    run: Run,
    model: ScoredModel,
    *,
    calibration: Examples,
    samples: Examples,
    to_inputs: Callable[[Examples], Examples],
    write_sample: Callable[[Path], None],
    evaluation: Evaluation | None,
    default_score: DefaultScore,
    path: Path,
) -> None:
    """Write the bundle `path`, `<name>/<version>`, and replace an existing one.

    The bundle is calibrated through its ONNX graph; see `training.scoring.calibration`.

    Args:
        run: The run directory.
        model: The model of the exported stage.
        calibration: The calibration split.
        samples: Further real inputs for the parity check.
        to_inputs: Converts examples to those that the torch model reads; see `write_checked_graph`.
        write_sample: Writes a sample input for a first request into the folder it is called with.
        evaluation: The figures for the manifest, None if the run is not evaluated.
        default_score: The score that the bundle decides by, with the reason of its choice.
        path: The bundle's path.

    Raises:
        ParityError: The graph does not give the scores of the torch model.
    """
    model = with_evidence(model, to_inputs(calibration).x[np.arange(TRACED_INPUTS)])
    with atomic_folder(path) as partial:
        write_sample(partial)
        outputs, parity = write_checked_graph(run, model, partial / GRAPH, calibration, samples, to_inputs)
        if run.report_path.exists():
            shutil.copytree(run.report_path, partial / "report")
        seal_run_bundle(
            run,
            model,
            partial,
            path,
            calibration=calibration,
            outputs=outputs,
            evaluation=evaluation,
            default_score=default_score,
            parity=parity,
        )


def write_checked_graph(
    run: Run,
    model: ScoredModel,
    graph: Path,
    calibration: Examples,
    samples: Examples,
    to_inputs: Callable[[Examples], Examples] = lambda examples: examples,
) -> tuple[Outputs, Parity]:
    """Write the ONNX graph of `model` to `graph` and compare its outputs with torch's on `calibration` and `samples`.

    With a backbone, `to_inputs` gives the features that the torch model reads, and the graph begins with the backbone.

    Returns:
        The graph's outputs on `calibration`, and the largest differences from torch.

    Raises:
        ParityError: A difference exceeds the recipe's tolerance.
    """
    tolerance = run.recipe.export.tolerance
    inputs, sample_inputs = to_inputs(calibration), to_inputs(samples)
    write_graph(model, inputs.x[np.arange(TRACED_INPUTS)], graph)
    if run.recipe.backbone is not None:
        onnx.save(join_head(open_backbone(run.backbone_path), onnx.load(graph)), graph)
    # A classifier of features reads these; its bundle reads texts.
    is_text_backbone = run.recipe.backbone is not None and isinstance(run.recipe.input, TextConfig)
    prepare = text_batch if is_text_backbone else model.model.prepare
    outputs, sample_outputs = (run_graph(graph, examples.x, prepare) for examples in (calibration, samples))
    tolerances = {}
    if isinstance(model, ScoredClassifier) and model.head.combination is not None:
        tolerances[COMBINED.name] = model.head.combination.tolerance(tolerance)
    check = partial(check_parity, tolerance=tolerance, tolerances=tolerances)
    differences = check(score_inputs(model, inputs.x), outputs)
    for name, difference in check(score_inputs(model, sample_inputs.x), sample_outputs).items():
        differences[name] = max(difference, differences[name])
    return outputs, Parity(tolerance=tolerance, max_difference=differences, inputs=len(calibration) + len(samples))


def seal_run_bundle(
    run: Run,
    model: ScoredModel,
    folder: Path,
    path: Path,
    *,
    calibration: Examples,
    outputs: Outputs,
    evaluation: Evaluation | None,
    default_score: DefaultScore,
    precision: Precision = "fp32",
    parity: Parity | None = None,
) -> None:
    """Add calibration, recipe and manifest to `folder`, which already has the graph and the report.

    Args:
        run: The run directory.
        model: The model of the exported stage.
        folder: The folder to complete.
        path: The bundle's path `<name>/<version>` that `folder` will be moved to.
        calibration: The calibration split.
        outputs: The outputs of the bundle's graph on `calibration`.
        evaluation: The figures for the manifest, None if the run is not evaluated.
        default_score: The score that the bundle decides by, with the reason of its choice.
        precision: The precision of the graph.
        parity: The differences between the graph and torch, None in a lower precision.
    """
    recipe = run.recipe
    save_calibrations(folder / _CALIBRATION, calibrations_from(outputs, model.scores))
    spec: ImageInput | TextInput
    if isinstance(recipe.input, TextConfig):
        shutil.copy(run.tokenizer_path, folder / _TOKENIZER)
        spec = TextInput(tokenizer=_TOKENIZER, max_tokens=recipe.export.max_tokens or recipe.input.max_tokens)
    else:
        spec = recipe.input
    shutil.copy(run.recipe_path, folder / "recipe.yaml")
    evidence = evidence_of(model, len(calibration.labels))
    if evidence is None and recipe.backbone is not None and isinstance(spec, ImageInput):
        evidence = _evidence_in_graph(folder / GRAPH, calibration, precision)
    neighbours = None
    if isinstance(model, ScoredClassifier) and model.head.has_neighbours:
        shutil.copy(run.references_path(recipe.export.stage), folder / REFERENCES)
        neighbours = NeighboursSpec(output=NEIGHBOURS, distances=DISTANCES, file=REFERENCES)
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
            "scores": [
                ScoreOutput(
                    name=name, output=name, combines=(recipe.export.combine or ()) if name == COMBINED.name else ()
                )
                for name in model.scores
            ],
            "default_score": default_score.name,
            "default_score_reason": default_score.reason,
            "likelihood": _likelihood(recipe, model),
            "evidence": evidence,
            "neighbours": neighbours,
            "model": GRAPH,
            "precision": precision,
            "calibration": CalibrationSpec(
                file=_CALIBRATION, n=len(calibration), source=calibration.name, alpha=recipe.export.alpha
            ),
            "training": describe_training(run, recipe.export.stage),
            "evaluation": evaluation,
            "parity": parity,
            "sample": sample_scores(folder, GRAPH, spec, list(model.scores)),
            "created": datetime.now(UTC).replace(microsecond=0),
        },
    )


def _likelihood(recipe: Recipe, model: ScoredModel) -> LikelihoodSpec | None:
    if model.parts is None:
        return None
    if isinstance(recipe.input, TextConfig):
        return LikelihoodSpec(per=recipe.input.unit, counts_end=recipe.likelihood.count_end, parts=model.parts)
    return LikelihoodSpec(per=recipe.likelihood.per, parts=model.parts)


def _evidence_in_graph(graph: Path, examples: Examples, precision: Precision) -> EvidenceSpec | None:
    """Add the evidence of positions to the `graph` of a classifier whose backbone torch did not export."""
    model = onnx.load(graph)
    evidence = add_evidence(model, {"images": examples.x[np.arange(TRACED_INPUTS)]}, precision)
    if evidence is not None:
        onnx.save(model, graph)
    return evidence
