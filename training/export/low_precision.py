"""Export of a finished stage as a bundle in lower precision, after checking that it detects as full precision does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bundle import EvidenceSpec
from training.data import Examples, InDistributionData
from training.errors import PrecisionError
from training.evaluation import (
    AurocChange,
    DefaultScore,
    EvaluationInputs,
    PrecisionComparison,
    Report,
    StageScores,
    assess,
    evaluate_stages,
    manifest_evaluation,
    write_report,
)
from training.export.bundle_export import GRAPH, SAMPLES, TRACED_INPUTS, seal_run_bundle, write_checked_graph
from training.export.bundle_folder import atomic_folder
from training.export.evidence import evidence_of, with_evidence
from training.export.graph_evidence import evidence_adds_up
from training.export.onnx_graph import graph_feeds, run_graph
from training.export.quantize import LowPrecision, write_low_precision
from training.models.score_heads import ScoredModel
from training.onnx_graphs import prune
from training.run import Run
from training.scoring.batch_scoring import Outputs
from training.scoring.calibration import anomalies, calibrations_from

LIMIT = 0.1
"""The change of a set's AUROC, in percentage points, from which the export is refused."""

_RANGE_INPUTS = 512
"""Training inputs that determine the scales of int8 activations."""


def export_low_precision(
    run: Run,
    model: ScoredModel,
    precision: LowPrecision,
    *,
    in_dist: InDistributionData,
    ood: Mapping[str, Examples],
    full_report: Report,
    write_sample: Callable[[Path], None],
    default_score: DefaultScore,
    path: Path,
) -> None:
    """Write the bundle `path`, `<name>/<version>`, in `precision`, calibrated and evaluated through its own graph.

    Nothing is written if an error is raised.

    Args:
        run: The run directory.
        model: The model of the exported stage.
        precision: The lower precision.
        in_dist: The in-distribution sets.
        ood: All out-of-distribution sets.
        full_report: The run's report on those sets.
        write_sample: Writes a sample input for a first request into the folder it is called with.
        default_score: The score that the bundle decides by, with the reason of its choice.
        path: The bundle's path.

    Raises:
        ParityError: The float32 graph does not give the scores of the torch model.
        GraphError: The graph cannot be converted to `precision`.
        PrecisionError: The AUROC of a set by a score changes by `LIMIT` or more.
    """
    recipe, prepare = run.recipe, model.model.prepare
    examples = in_dist.calibration.x[np.arange(TRACED_INPUTS)]
    without_evidence, model = model, with_evidence(model, examples)
    full_stage = recipe.export.stage
    low_stage = f"{full_stage} {precision}"
    with atomic_folder(path) as partial, TemporaryDirectory() as scratch:
        write_sample(partial)
        full_graph, low_graph = Path(scratch) / GRAPH, partial / GRAPH
        samples = in_dist.test.evenly_spaced(SAMPLES)
        full_outputs, _ = write_checked_graph(run, model, full_graph, in_dist.calibration, samples)
        range_inputs = in_dist.train.evenly_spaced(_RANGE_INPUTS)
        feeds = graph_feeds(model.model.input_names, range_inputs.x, prepare)
        write_low_precision(full_graph, low_graph, precision, feeds)
        if not _keep_exact_evidence(evidence_of(model, len(in_dist.test.labels)), low_graph, precision, examples):
            model = without_evidence
        low_outputs = run_graph(low_graph, in_dist.calibration.x, prepare)
        inputs = EvaluationInputs(
            stages={
                full_stage: _graph_scores(full_graph, model, full_outputs, in_dist.test, ood),
                low_stage: _graph_scores(low_graph, model, low_outputs, in_dist.test, ood),
            },
            title=f"Evaluation of {path.parent.name}",
            alpha=recipe.export.alpha,
            draws=recipe.evaluation.draws,
            seed=recipe.seed,
            default_score=default_score.name,
            in_dist=full_report.in_dist,
            sets=full_report.sets,
            removed=full_report.removed,
            validation=full_report.validation,
            near=full_report.near,
            synthetic=full_report.synthetic,
            upper_bounds=full_report.upper_bounds,
            shortcuts=full_report.shortcuts,
            recalls=full_report.recalls,
            provenance=full_report.provenance,
        )
        report = evaluate_stages(inputs)
        comparison = _compare(report, full_stage, low_stage, precision)
        report = report.model_copy(update={"comparison": comparison, "default_score_reason": default_score.reason})
        report = report.model_copy(update={"usability": assess(report, low_stage)})
        write_report(report, inputs, partial / "report")
        seal_run_bundle(
            run,
            model,
            partial,
            path,
            calibration=in_dist.calibration,
            outputs=low_outputs,
            evaluation=manifest_evaluation(report, low_stage),
            default_score=default_score,
            precision=precision,
        )


def _keep_exact_evidence(
    spec: EvidenceSpec | None, graph: Path, precision: LowPrecision, examples: NDArray[Any]
) -> bool:
    """Whether `graph` has the evidence of `spec`, after removing it if it does not add up to the logits there."""
    if spec is None:
        return False
    model = onnx.load(graph)
    if evidence_adds_up(model, {"images": examples}, spec, precision):
        return True
    prune(model.graph, [output.name for output in model.graph.output if output.name != spec.output])
    onnx.save(model, graph)
    return False


def _graph_scores(
    graph: Path, model: ScoredModel, calibration_outputs: Outputs, test: Examples, ood: Mapping[str, Examples]
) -> StageScores:
    """The scores of `graph` on the test sets, with calibrations from its outputs on the calibration split."""
    outputs = run_graph(graph, test.x, model.model.prepare)
    return StageScores(
        in_dist=anomalies(outputs, model.scores),
        ood={
            name: anomalies(run_graph(graph, examples.x, model.model.prepare), model.scores)
            for name, examples in ood.items()
        },
        calibrations=calibrations_from(calibration_outputs, model.scores),
        error=float(np.mean(outputs["prediction"] != test.targets())) if "prediction" in outputs else None,
    )


def _compare(report: Report, full_stage: str, low_stage: str, precision: LowPrecision) -> PrecisionComparison:
    """The AUROC changes of all sets and scores; PrecisionError if one reaches the limit."""
    changes = [
        AurocChange(
            set=row.set,
            score=row.score,
            before=row.auroc.mean,
            after=report.find(row.set, low_stage, row.score).auroc.mean,
        )
        for row in report.results
        if row.stage == full_stage and row.set in report.sets
    ]
    comparison = PrecisionComparison(
        precision=precision, full=full_stage, low_precision=low_stage, limit=LIMIT, changes=changes
    )
    if comparison.beyond_limit:
        moved = "; ".join(
            f"'{change.set}' by {change.score} from {change.before:.3f} to {change.after:.3f}"
            for change in comparison.beyond_limit
        )
        reason = f"moves the AUROC of a set by {LIMIT:g} points or more: {moved}"
        raise PrecisionError(
            f"precision {precision}", reason, "No bundle was written; export it with another --precision"
        )
    return comparison
