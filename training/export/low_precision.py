"""Variant export: a finished stage becomes a bundle in lower precision, if that detects what full precision does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bundle import Calibration
from training import evaluation
from training.data import Examples, InDistributionData
from training.errors import PrecisionError
from training.evaluation import AurocChange, Comparison, Report, StageScores
from training.export.bundle_folder import atomic_folder
from training.export.export import GRAPH, SAMPLES, sample_of, seal_run, write_checked_graph
from training.export.onnx_graph import graph_feeds, run_graph
from training.export.quantize import LowPrecision, write_low_precision
from training.models.score_heads import ScoredModel
from training.run import Run
from training.scoring.calibrate import anomalies
from training.scoring.score import Outputs

LIMIT = 0.1
"""Percentage points that no set's AUROC may move by."""

_RANGED_ON = 512
"""Training inputs that the scales of int8 activations are set by."""


def export_low_precision(
    run: Run,
    model: ScoredModel,
    precision: LowPrecision,
    *,
    inside: InDistributionData,
    sets: Mapping[str, Examples],
    full: Report,
    write_sample: Callable[[Path], None],
    path: Path,
) -> None:
    """Write the bundle `path`, `<name>/<version>`, in `precision`, calibrated and evaluated through its own graph.

    `sets` are all out-of-distribution sets and `full` is the run's report on them. Raises ParityError where the float32
    graph is not the model, GraphError where it cannot be had in `precision`, and PrecisionError where the AUROC of any
    set by any score moves by `LIMIT` or more; then nothing is written.
    """
    recipe, prepare = run.recipe, model.model.prepare
    stage = recipe.export.stage
    variant = f"{stage} {precision}"

    def measured(graph: Path, calibration: Outputs) -> StageScores:
        test = run_graph(graph, inside.test.x, prepare)
        error = None
        if "prediction" in test:
            error = float(np.mean(test["prediction"] != inside.test.targets()))
        return StageScores(
            inside=anomalies(test, model.scores),
            outside={
                name: anomalies(run_graph(graph, examples.x, prepare), model.scores) for name, examples in sets.items()
            },
            calibrations={
                name: Calibration.from_scores(values) for name, values in anomalies(calibration, model.scores).items()
            },
            error=error,
        )

    with atomic_folder(path) as partial, TemporaryDirectory() as scratch:
        write_sample(partial)
        whole, graph = Path(scratch) / GRAPH, partial / GRAPH
        outputs, _ = write_checked_graph(run, model, whole, inside.calibration, sample_of(inside.test, SAMPLES))
        ranged_on = sample_of(inside.train, _RANGED_ON)
        write_low_precision(whole, graph, precision, graph_feeds(model.model.input_names, ranged_on.x, prepare))
        own_outputs = run_graph(graph, inside.calibration.x, prepare)
        stages = {stage: measured(whole, outputs), variant: measured(graph, own_outputs)}
        report = evaluation.evaluate(
            stages,
            alpha=recipe.export.alpha,
            draws=recipe.evaluation.draws,
            seed=recipe.seed,
            default_score=recipe.export.default_score,
            inside=full.inside,
            sets=full.sets,
            validation=full.validation,
            provenance=full.provenance,
        )
        report = report.model_copy(update={"comparison": _compare(report, stage, variant, precision)})
        title = f"Evaluation of {path.parent.name}"
        evaluation.write_report(
            report,
            stages,
            partial / "report",
            title=title,
            seed=recipe.seed,
            score=recipe.export.default_score,
        )
        seal_run(
            run,
            model,
            partial,
            path,
            calibration=inside.calibration,
            outputs=own_outputs,
            evaluation=evaluation.manifest_evaluation(report, variant),
            precision=precision,
        )


def _compare(report: Report, full: str, variant: str, precision: LowPrecision) -> Comparison:
    """The changes of every set by every score; PrecisionError where one reaches the limit."""
    changes = [
        AurocChange(
            set=row.set,
            score=row.score,
            before=row.auroc.mean,
            after=report.find(row.set, variant, row.score).auroc.mean,
        )
        for row in report.results
        if row.stage == full and row.set in report.sets
    ]
    found = Comparison(precision=precision, full=full, variant=variant, limit=LIMIT, changes=changes)
    if found.beyond_limit:
        moved = "; ".join(
            f"'{change.set}' by {change.score} from {change.before:.3f} to {change.after:.3f}"
            for change in found.beyond_limit
        )
        reason = f"moves the AUROC of a set by {LIMIT:g} points or more: {moved}"
        raise PrecisionError(
            f"precision {precision}", reason, "No bundle was written; export it with another --precision"
        )
    return found
