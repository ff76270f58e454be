"""The steps of a training run, each from the run directory to the run directory, as the command line calls them."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bundle import Calibration, Precision
from training import evaluation
from training.console import console, progress_bars
from training.data import (
    DataLocations,
    Examples,
    InDistributionData,
    Progress,
    Reader,
    load_in_distribution,
    load_set,
    open_reader,
    without_overlap,
)
from training.errors import RunError
from training.evaluation import Report, StageScores
from training.export.export import SAMPLES, bundle_path, export_bundle, sample_of
from training.export.low_precision import export_low_precision
from training.export.provenance import save_fingerprints
from training.fitting import fit as fitting
from training.models.build import scored_model
from training.models.score_heads import ScoredClassifier, ScoredModel
from training.recipe import Recipe, Source, Synthetic
from training.run import Run
from training.scoring.calibrate import anomalies, save_temperature, stage_calibration, stage_temperature
from training.scoring.calibrate import calibrate as keep_calibration
from training.scoring.logits import LOGITS, recorded_logits, stage_logits
from training.scoring.score import Outputs, in_order, score_inputs, scoring_order


def locations(data: Path | None) -> DataLocations:
    """Where data is, from the command line or the environment."""
    return DataLocations() if data is None else DataLocations(root=data)


def start_run(recipe: Recipe, path: Path | None, *, overwrite: bool) -> Run:
    """Create, or take up, the recipe's run directory, `runs/<name>` by default."""
    # The further processes of a distributed run execute the same command: what the first one began must stay.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    return Run.create(path or Path("runs") / recipe.name, recipe, overwrite=overwrite and first)


def fit(run: Run, places: DataLocations, *, resume: bool) -> None:
    """Load the data and train what is not trained yet."""
    recipe = run.recipe
    reader = _reader(run, places)
    with progress_bars() as bars:
        inside = load_in_distribution(recipe, reader, bars.report)
        found = _outliers(recipe, reader, inside, bars.report)
        outliers = found
        if found is not None and recipe.outliers is not None:
            outliers = without_overlap(found, inside, reader, recipe.outliers, bars.report)
    if found is not None and outliers is not None and len(outliers) < len(found):
        console.print(f"removed {len(found) - len(outliers)} outliers that are (nearly) in-distribution examples")
    save_fingerprints(run, [inside.train, inside.calibration, inside.test, *([] if outliers is None else [outliers])])
    fitting.fit(run, inside.train, outliers, resume=resume, announce=console.print)


def calibrate(run: Run, places: DataLocations) -> None:
    """Score the calibration split with every stage."""
    with progress_bars() as bars:
        inside = load_in_distribution(run.recipe, _reader(run, places), bars.report)
        for stage in run.recipe.stages:
            model = _model(run, stage, len(inside.train.labels))
            outputs = _score(model, inside.calibration, stage, bars.report)
            keep_calibration(run, stage, outputs)
            if LOGITS in outputs:
                save_temperature(run, stage, outputs, inside.calibration.targets())


def evaluate(run: Run, places: DataLocations) -> None:
    """Score every test set with every stage and write `report.json`, `report.md` and the plots."""
    recipe, reader = run.recipe, _reader(run, places)
    # Scoring takes minutes: what it needs in the end must be there before.
    calibrations = {stage: stage_calibration(run, stage) for stage in recipe.stages}
    with progress_bars() as bars:
        inside = load_in_distribution(recipe, reader, bars.report)
        test = inside.test
        outliers = _outliers(recipe, reader, inside, bars.report)
        sets = _evaluation_sets(recipe, reader, test, bars.report)
        described = {
            name: _describe(plan, sets[name], outliers, reader) for name, plan in recipe.evaluation.sets.items()
        }
        stages = {
            stage: _scores_of(run, stage, calibrations[stage], test, sets, bars.report) for stage in recipe.stages
        }
    report = evaluation.evaluate(
        stages,
        alpha=recipe.export.alpha,
        draws=recipe.evaluation.draws,
        seed=recipe.seed,
        default_score=recipe.export.default_score,
        inside=_test_of(recipe),
        sets=described,
        validation=tuple(recipe.evaluation.validation),
        provenance=_provenance(run),
    )
    folder, title = run.report_path, f"Evaluation of {recipe.name}"
    evaluation.write_report(report, stages, folder, title=title, seed=recipe.seed, score=recipe.export.default_score)
    console.print(f"report: {folder / 'report.md'}")


def export(
    run: Run,
    places: DataLocations,
    models: Path,
    *,
    version: int | None = None,
    precision: Precision = "fp32",
    overwrite: bool,
) -> Path:
    """Write the exported stage's bundle into the repository `models`, as `version` or the recipe's.

    In a lower `precision`, as a bundle beside the full one, refused where it detects less on any set of the report.
    """
    recipe, stage = run.recipe, run.recipe.export.stage
    path = bundle_path(recipe, models, version=version, precision=precision, overwrite=overwrite)
    report = _report(run)
    if report is None and precision != "fp32":
        reason = "is not evaluated: there is nothing to hold a lower precision against"
        raise RunError(str(run.path), reason, f"Run `evaluate {run.path}` first")
    reader = _reader(run, places)
    with progress_bars() as bars:
        inside = load_in_distribution(recipe, reader, bars.report)
        sets = {} if precision == "fp32" else _evaluation_sets(recipe, reader, inside.test, bars.report)
    model, sample = _model(run, stage, len(inside.test.labels)), inside.sample

    def write_sample(folder: Path) -> None:
        reader.write_sample(sample.source, folder, sample.row)

    console.print("writing the graph and comparing it with torch on real inputs ...")
    if precision == "fp32" or report is None:
        export_bundle(
            run,
            model,
            calibration=inside.calibration,
            samples=sample_of(inside.test, SAMPLES),
            write_sample=write_sample,
            evaluation=None if report is None else evaluation.manifest_evaluation(report, stage),
            path=path,
        )
    else:
        console.print(f"then writing it in {precision} and measuring both on every set ...")
        export_low_precision(
            run, model, precision, inside=inside, sets=sets, full=report, write_sample=write_sample, path=path
        )
    return path


def _reader(run: Run, places: DataLocations) -> Reader:
    return open_reader(run.recipe, places, run.tokenizer_path)


def _outliers(recipe: Recipe, reader: Reader, inside: InDistributionData, report: Progress) -> Examples | None:
    """The auxiliary outliers as they are, or None where the recipe has none."""
    if recipe.outliers is None:
        return None
    return load_set(recipe.outliers.train, reader, inside.train, name="outliers", seed=recipe.seed, progress=report)


def _evaluation_sets(recipe: Recipe, reader: Reader, test: Examples, report: Progress) -> dict[str, Examples]:
    return {
        name: load_set(plan, reader, test, name=name, seed=recipe.seed, progress=report)
        for name, plan in recipe.evaluation.sets.items()
    }


def _model(run: Run, stage: str, num_classes: int) -> ScoredModel:
    return scored_model(run.recipe, fitting.load_model(run, stage, num_classes))


def _score(model: ScoredModel, examples: Examples, stage: str, report: Progress) -> Outputs:
    """Every output of the graph that is `[N]`, and a classifier's `logits` `[N, K]` besides."""

    def progress(done: int, total: int) -> None:
        report(f"{stage}: {examples.name}", done, total)

    if not isinstance(model, ScoredClassifier):
        return score_inputs(model, examples.x, progress=progress)
    with recorded_logits(model) as logits:
        outputs = score_inputs(model, examples.x, progress=progress)
    return outputs | {LOGITS: in_order(logits.array(), scoring_order(examples.x))}


def _scores_of(
    run: Run,
    stage: str,
    calibrations: Mapping[str, Calibration],
    test: Examples,
    sets: Mapping[str, Examples],
    report: Progress,
) -> StageScores:
    model = _model(run, stage, len(test.labels))
    names = run.recipe.export.scores
    outputs = _score(model, test, stage, report)
    outside = {name: _score(model, examples, stage, report) for name, examples in sets.items()}
    error, logits = None, None
    if LOGITS in outputs:
        error = float(np.mean(outputs["prediction"] != test.targets()))
        logits = stage_logits(outputs, test.targets(), outside, stage_temperature(run, stage))
    return StageScores(
        inside=anomalies(outputs, names),
        outside={name: anomalies(found, names) for name, found in outside.items()},
        calibrations=calibrations,
        error=error,
        logits=logits,
    )


def _describe(plan: Source | Synthetic, examples: Examples, outliers: Examples | None, reader: Reader) -> str:
    if isinstance(plan, Synthetic):
        path = f"through JPEG quality {plan.jpeg_quality}" if plan.jpeg_quality else "not through JPEG"
        return f"{len(examples):,} synthetic images ({plan.synthetic}), {path}"
    repeated = 0 if outliers is None else len(reader.overlap(outliers, examples, f"overlap of {examples.name}").rows)
    seen = f"{repeated:,} of them (nearly) outliers that were trained on" if repeated else "none of them trained on"
    return f"{len(examples):,} examples of {plan.path}, {seen}"


def _test_of(recipe: Recipe) -> str:
    plan = recipe.in_distribution
    return f"{plan.train.path}, held out" if plan.test is None else plan.test.path


def _provenance(run: Run) -> dict[str, str]:
    facts = {"recipe": f"{run.recipe.name}.yaml, seed {run.recipe.seed}"}
    for name in run.recipe.stages:
        record = run.record(name)
        facts[f"stage {name}"] = f"{record.epochs} epochs in {record.seconds / 60:.0f} minutes on {record.hardware}"
    return facts


def _report(run: Run) -> Report | None:
    path = run.report_path / "report.json"
    return Report.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None
