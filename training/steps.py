"""The steps of a training run: each reads the run directory and the data, and saves its result in the run directory."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from bundle import FEATURE_SCORES, Calibration, Precision, false_flag_rate
from datafiles import printable
from training.backbones import (
    copy_transformers,
    load_backbone,
    load_transformers,
    open_backbone,
    save_backbone,
    with_features,
)
from training.console import announce, console, progress_bars
from training.data import (
    NOISE,
    BrokenInputs,
    DataLocations,
    EvaluationSet,
    Examples,
    InDistributionData,
    Problem,
    Progress,
    Reader,
    all_problems,
    announce_left_out,
    load_evaluation_sets,
    load_in_distribution,
    load_set,
    open_reader,
    read_texts,
    without_overlap,
)
from training.data.splits import split_standardisation
from training.data_check import (
    Finding,
    blank_images_findings,
    calibration_size_findings,
    conflicting_labels_finding,
)
from training.errors import BackboneError, RunError
from training.evaluation import (
    TEXT_RECALL,
    DefaultScore,
    EvaluationInputs,
    RemovedInputs,
    Report,
    SegmentScores,
    ShortcutCheck,
    StageScores,
    assess,
    choose_default_score,
    evaluate_stages,
    manifest_evaluation,
    write_report,
)
from training.export.attention import POOR_ON_TRANSFORMERS, has_attention, transformer_warning
from training.export.bundle_export import GRAPH, SAMPLES, export_bundle, recipe_bundle_path
from training.export.low_precision import export_low_precision
from training.export.provenance import require_same_data, save_fingerprints
from training.fitting.stages import fit_stages
from training.fitting.weights import load_model
from training.models.build import scored_model
from training.models.classifier import Classifier, Mirrored
from training.models.combination import Combination, fit_combination
from training.models.likelihood_heads import ScoredLanguageModel
from training.models.score_heads import ScoredClassifier, ScoredModel
from training.pretrained_files import find_pretrained
from training.recipe import AUTO, Recipe, Source, Synthetic, TextConfig
from training.run import Run
from training.scoring.batch_scoring import Outputs, restore_order, score_inputs, scoring_order
from training.scoring.calibration import (
    anomalies,
    load_calibration,
    load_temperature,
    save_calibration,
    save_temperature,
)
from training.scoring.features import load_stage_statistics, save_stage_statistics
from training.scoring.logits import LOGITS, recorded_logits, stage_logits
from training.scoring.segments import SEGMENT_SYMBOLS, segment_scores

_SPACES = {
    "pixels": "values stretched to 0..255 (in the paper normalised values, of less contrast)",
    "normalised": "in normalised values as in the paper",
}
"""A report's description of the contrast of noise, by the recipe's `space`."""


def data_locations(data_dir: Path | None) -> DataLocations:
    """The folders of data and caches: `data_dir`, or the environment's if it is None."""
    return DataLocations() if data_dir is None else DataLocations(data_dir=data_dir)


def start_run(recipe: Recipe, path: Path | None, *, overwrite: bool) -> Run:
    """Create or resume the recipe's run directory, by default `runs/<name>`."""
    # The other processes of a distributed run execute the same command and must not delete the first one's work.
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    run = Run.create(path or Path("runs") / recipe.name, recipe, overwrite=overwrite and is_first)
    if is_first:
        run.discard_unused_inputs()
    return run


def save_shortcuts(run: Run, check: ShortcutCheck) -> None:
    """Write the shortcut check of the run's data to the run directory, for the report."""
    run.shortcuts_path.write_text(check.model_dump_json(indent=1) + "\n", encoding="utf-8")


def fit_run(run: Run, locations: DataLocations, *, resume: bool) -> None:
    """Load the data and train the stages that are not finished yet.

    Raises:
        BrokenInputs: Inputs of a set, also of an evaluation set, cannot be used, and the recipe does not skip them.
        RunError: A stage was trained on other data, or was interrupted and `resume` is off.
    """
    recipe = run.recipe
    _copy_backbone(run, locations)
    with progress_bars() as bars:
        reader = _checked_reader(run, locations, bars.report)
        in_dist = load_in_distribution(recipe, reader, bars.report)
        if in_dist.duplicates.total:
            console.print(str(in_dist.duplicates))
        outliers = _outliers(recipe, reader, in_dist, bars.report)
        for finding in _data_findings(recipe, in_dist, outliers):
            announce(str(finding))
        if outliers is not None and recipe.outliers is not None:
            n, left_out = len(outliers), outliers.left_out
            outliers = without_overlap(outliers, in_dist, reader, recipe.outliers, bars.report)
            outliers = replace(outliers, left_out=left_out)
            if len(outliers) < n:
                console.print(f"removed {n - len(outliers)} outliers that are (nearly) in-distribution examples")
    data = [in_dist.train, in_dist.calibration, in_dist.test, *([] if outliers is None else [outliers])]
    save_fingerprints(run, data)
    with progress_bars() as bars:
        to_inputs = _model_inputs(run, locations, bars.report)
        train, outliers = to_inputs(in_dist.train), None if outliers is None else to_inputs(outliers)
    fit_stages(run, train, outliers, resume=resume, announce=console.print)


def _data_findings(recipe: Recipe, in_dist: InDistributionData, outliers: Examples | None) -> list[Finding]:
    """The findings of the fast part of the data check: labels, sizes of classes, blank images."""
    findings = [] if in_dist.conflicting == 0 else [conflicting_labels_finding(in_dist.conflicting)]
    if recipe.task == "classification":
        calibration = _split_calibration(recipe, in_dist)[0].calibration
        findings += calibration_size_findings(calibration.class_counts(), recipe.export.alpha)
    real = outliers is not None and recipe.outliers is not None and isinstance(recipe.outliers.train, Source)
    return findings + blank_images_findings([*in_dist.splits, *([outliers] if real and outliers is not None else [])])


def _checked_reader(run: Run, locations: DataLocations, progress: Progress) -> Reader:
    """A reader of the run's data that has read every input of every set, and announces those that it leaves out.

    Raises:
        BrokenInputs: Inputs cannot be used, and the recipe does not skip them; lists all of them.
    """
    recipe, sources = run.recipe, run.recipe.sources
    problems: list[Problem] = []
    if isinstance(recipe.input, TextConfig) and not recipe.skip_broken:
        # Before the tokenizer is made of the texts.
        problems = [problem for source in sources for problem in read_texts(source, locations).problems]
    if problems:
        raise BrokenInputs(problems)
    reader = _reader(run, locations)
    loads = (partial(reader.load, source, name=source.path, progress=progress) for source in sources)
    if problems := all_problems(loads):
        raise BrokenInputs(problems)
    announce_left_out(reader.left_out, announce)
    return reader


def calibrate_run(run: Run, locations: DataLocations) -> None:
    """Score the calibration split with every stage and save the calibrations, temperatures and feature statistics.

    Prints the false-flag rate that the calibration guarantees.
    """
    with progress_bars() as bars:
        in_dist = load_in_distribution(run.recipe, _reader(run, locations), bars.report)
        require_same_data(run, in_dist.splits)
        in_dist, standardisation = _split_calibration(run.recipe, in_dist)
        to_inputs = _model_inputs(run, locations, bars.report)
        train, calibration = to_inputs(in_dist.train), to_inputs(in_dist.calibration)
        for stage in run.recipe.stages:
            _save_statistics(run, stage, train, bars.report)
            if standardisation is not None:
                _save_combination(run, stage, to_inputs(standardisation), bars.report)
            model = _model(run, stage, len(train.labels))
            outputs = _score(model, calibration, stage, bars.report)
            save_calibration(run, stage, outputs)
            if LOGITS in outputs:
                save_temperature(run, stage, outputs, in_dist.calibration.targets())
    console.print(str(false_flag_rate(len(in_dist.calibration), run.recipe.export.alpha)), highlight=False)


def evaluate_run(run: Run, locations: DataLocations) -> None:
    """Score every test set with every stage and write `report.json`, `report.md` and the plots.

    Prints first whether the detector is usable and what to do.
    """
    recipe, reader = run.recipe, _reader(run, locations)
    # Read before scoring, which takes minutes: a missing calibration fails at once.
    calibrations = {stage: load_calibration(run, stage) for stage in recipe.stages}
    with progress_bars() as bars:
        in_dist = load_in_distribution(recipe, reader, bars.report)
        require_same_data(run, in_dist.splits)
        outliers = _outliers(recipe, reader, in_dist, bars.report)
        loaded = load_evaluation_sets(recipe, reader, in_dist, outliers, bars.report)
        sets = {name: loaded_set.examples for name, loaded_set in loaded.items()}
        to_inputs = _model_inputs(run, locations, bars.report)
        test, set_inputs = to_inputs(in_dist.test), {name: to_inputs(examples) for name, examples in sets.items()}
        stages = {
            stage: _stage_scores(run, stage, calibrations[stage], test, set_inputs, bars.report)
            for stage in recipe.stages
        }
        segments = _segment_scores(run, in_dist, sets, bars.report)
    inputs = EvaluationInputs(
        stages=stages,
        title=f"Evaluation of {recipe.name}",
        alpha=recipe.export.alpha,
        draws=recipe.evaluation.draws,
        seed=recipe.seed,
        # Replaced by the chosen score below; no figure depends on it.
        default_score=recipe.export.scores[0],
        in_dist=_describe_test_set(recipe),
        sets={name: _describe(config, loaded[name]) for name, config in recipe.evaluation.sets.items()},
        removed={
            name: RemovedInputs(trained_on=loaded_set.trained_on, unknown=loaded_set.unknown)
            for name, loaded_set in loaded.items()
            if loaded_set.trained_on or loaded_set.unknown
        },
        validation=tuple(recipe.evaluation.validation),
        synthetic=[name for name, config in recipe.evaluation.sets.items() if isinstance(config, Synthetic)],
        near=recipe.evaluation.near,
        recalls=_recalls(recipe),
        provenance=_provenance(run) | {"duplicates": str(in_dist.duplicates)} | _left_out(reader),
        upper_bounds=_upper_bounds(recipe, outliers, sets),
        shortcuts=_shortcuts(run),
        segments=segments,
    )
    report = evaluate_stages(inputs)
    choice = _default_score(run, report)
    report = report.model_copy(update={"default_score": choice.name, "default_score_reason": choice.reason})
    usability = assess(report, recipe.export.stage, _remedies(recipe))
    report = report.model_copy(update={"usability": usability})
    write_report(report, replace(inputs, default_score=choice.name), run.report_path)
    announce(str(usability))
    console.print(f"default score: {choice.name} ({choice.reason})")
    console.print(f"report: {run.report_path / 'report.md'}")
    for name in inputs.upper_bounds:
        console.print(f"{name}: an upper bound, because these are outliers like those trained on", highlight=False)


def export_run(
    run: Run,
    locations: DataLocations,
    models: Path,
    *,
    version: int | None = None,
    precision: Precision = "fp32",
    overwrite: bool,
) -> Path:
    """Write the bundle of the exported stage.

    Args:
        run: A run that is fitted, and evaluated if `precision` is not `fp32`.
        locations: The folders of the run's data.
        models: The model repository to write to.
        version: The bundle's version, by default the recipe's.
        precision: The number format of the graph; each has a bundle of its own.
        overwrite: Whether to replace an existing bundle.

    Returns:
        The bundle's folder.

    Raises:
        RunError: The bundle exists, or the report is missing for a lower precision.
        PrecisionError: The lower precision detects less on a set of the report.
    """
    recipe, stage = run.recipe, run.recipe.export.stage
    if precision != "fp32" and recipe.backbone is not None:
        raise RunError(str(run.path), f"its backbone cannot be exported in {precision}", "Leave out --precision")
    path = recipe_bundle_path(recipe, models, version=version, precision=precision, overwrite=overwrite)
    report = _report(run)
    if report is None and precision != "fp32":
        reason = "is not evaluated, so there is nothing to compare a lower precision with"
        raise RunError(str(run.path), reason, f"Run `evaluate {run.path}` first")
    reader = _reader(run, locations)
    with progress_bars() as bars:
        in_dist = load_in_distribution(recipe, reader, bars.report)
        require_same_data(run, in_dist.splits)
        in_dist, _ = _split_calibration(recipe, in_dist)
        sets: dict[str, Examples] = {}
        if precision != "fp32":
            outliers = _outliers(recipe, reader, in_dist, bars.report)
            loaded = load_evaluation_sets(recipe, reader, in_dist, outliers, bars.report)
            sets = {name: loaded_set.examples for name, loaded_set in loaded.items()}
        to_inputs = _model_inputs(run, locations, bars.report)
    model, sample = _model(run, stage, len(in_dist.test.labels)), in_dist.sample

    def write_sample(folder: Path) -> None:
        reader.write_sample(sample.source, folder, sample.row)

    default_score = _default_score(run, report)
    console.print("writing the graph and comparing it with torch on real inputs ...")
    if precision == "fp32" or report is None:
        export_bundle(
            run,
            model,
            calibration=in_dist.calibration,
            samples=in_dist.test.evenly_spaced(SAMPLES),
            to_inputs=to_inputs,
            write_sample=write_sample,
            evaluation=None if report is None else manifest_evaluation(report, stage),
            default_score=default_score,
            path=path,
        )
    else:
        console.print(f"then writing it in {precision} and measuring both on every set ...")
        export_low_precision(
            run,
            model,
            precision,
            in_dist=in_dist,
            ood=sets,
            full_report=report,
            write_sample=write_sample,
            default_score=default_score,
            path=path,
        )
    # A score that the validation sets chose was measured on this model.
    if recipe.export.default_score in POOR_ON_TRANSFORMERS and has_attention(onnx.load(path / GRAPH)):
        console.print(transformer_warning(recipe.export.default_score))
    return path


def _default_score(run: Run, report: Report | None) -> DefaultScore:
    """The default score of the run's recipe, or its choice by the run's report.

    Raises RunError if the report lacks a score of the recipe.
    """
    export = run.recipe.export
    if export.default_score != AUTO:
        return DefaultScore(export.default_score, "set by the recipe")
    if report is None:
        return DefaultScore(export.scores[0], "first of the recipe's scores: the run was not evaluated")
    measured = {row.score for row in report.results if row.stage == export.stage}
    if missing := [name for name in export.scores if name not in measured]:
        reason = f"the report has no figures of stage '{export.stage}' by {', '.join(missing)}"
        raise RunError(str(run.path), reason, f"Run `calibrate {run.path}` and `evaluate {run.path}` again")
    return choose_default_score(report, export.stage, export.scores)


def _remedies(recipe: Recipe) -> list[str]:
    """Return sentences that tell the user how to improve a detector that is not useful."""
    if recipe.outliers is None:
        outliers = "train with outliers of many kinds"
    else:
        outliers = "train with more outliers, of more kinds and more like the inputs to be flagged"
    if recipe.task != "classification" or recipe.pretrained is not None:
        return [f"{outliers.capitalize()}."]
    return [f"Use a pretrained backbone (--backbone, or architecture: pretrained), or {outliers}."]


def _reader(run: Run, locations: DataLocations) -> Reader:
    return open_reader(run.recipe, locations, run.tokenizer_path)


def _copy_backbone(run: Run, locations: DataLocations) -> None:
    """Copy the pretrained weights of a fine-tuned backbone to the run directory, which then has all that it needs."""
    config, folder = run.recipe.fine_tuned, run.backbone_folder
    if config is None or folder.exists():
        return
    path = find_pretrained(config.backbone, locations.data_dir)
    if not path.is_dir():
        remedy = "Name the folder or the hub name of a transformers model, or leave out architecture.fine_tune"
        raise BackboneError(config.backbone, "is an ONNX file, whose weights cannot be trained", remedy)
    partial_folder = folder.with_suffix(".partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    copy_transformers(path, partial_folder)
    # Before the data are read, which can take long.
    load_transformers(partial_folder, run.recipe.input)
    partial_folder.rename(folder)


def _model_inputs(run: Run, locations: DataLocations, progress: Progress) -> Callable[[Examples], Examples]:
    """A function from examples to the examples that the run's model reads: their features if it has a backbone."""
    config, spec = run.recipe.backbone, run.recipe.input
    if config is None:
        return lambda examples: examples
    if not run.backbone_path.exists():
        path = find_pretrained(config.backbone, locations.data_dir)
        save_backbone(load_backbone(path, spec, config.features, name=config.backbone), run.backbone_path)
    backbone = open_backbone(run.backbone_path)

    def features(examples: Examples) -> Examples:
        report = partial(progress, f"features: {examples.name}")
        return with_features(examples, backbone, locations.cache_dir / "features", report)

    return features


def _outliers(recipe: Recipe, reader: Reader, in_dist: InDistributionData, progress: Progress) -> Examples | None:
    """The recipe's auxiliary outliers including duplicates of in-distribution examples; None if it has no outliers."""
    if recipe.outliers is None:
        return None
    config = recipe.outliers.train
    return load_set(
        config, reader, in_dist.train, name="outliers", seed=recipe.seed, spec=recipe.input, progress=progress
    )


def _model(run: Run, stage: str, num_classes: int) -> ScoredModel:
    combination = None
    if run.recipe.export.combine is not None:
        combination = Combination.load(run.combination_path(stage), run.recipe.export.combine)
    model, statistics = load_model(run, stage, num_classes), load_stage_statistics(run, stage)
    return scored_model(run.recipe, model, statistics, combination, neighbours=run.references_path(stage).exists())


def _split_calibration(recipe: Recipe, in_dist: InDistributionData) -> tuple[InDistributionData, Examples | None]:
    """The sets with the calibration split without the examples that standardise combined scores, and these examples."""
    if recipe.export.combine is None:
        return in_dist, None
    held_out = in_dist.calibration
    calibrating, standardising = split_standardisation(len(held_out))
    calibration = held_out.rows(calibrating)
    return replace(in_dist, calibration=calibration), held_out.rows(standardising, "standardisation")


def _save_combination(run: Run, stage: str, standardisation: Examples, progress: Progress) -> None:
    """Save what the score `combined` needs to know of the scores that it combines."""
    combine = run.recipe.export.combine
    assert combine is not None, "the examples are drawn for it"
    statistics = load_stage_statistics(run, stage) if set(combine) & set(FEATURE_SCORES) else None
    model = load_model(run, stage, len(standardisation.labels))
    members = scored_model(run.recipe, model, statistics, scores=combine)
    outputs = _score(members, standardisation, stage, progress)
    run.calibration_path.mkdir(exist_ok=True)
    fit_combination(anomalies(outputs, combine)).save(run.combination_path(stage))


def _save_statistics(run: Run, stage: str, train: Examples, progress: Progress) -> None:
    """Save what scores of features need to know of the training split."""
    model = load_model(run, stage, len(train.labels))
    if isinstance(model, Classifier):
        classifier = Mirrored(model) if run.recipe.export.mirror else model
        save_stage_statistics(run, stage, classifier, train, partial(progress, f"{stage}: {train.name}"))


def _score(model: ScoredModel, examples: Examples, stage: str, progress: Progress) -> Outputs:
    """The outputs of shape `[N]` of the model's graph, and the `logits` `[N, K]` of a classifier."""

    def report(done: int, total: int) -> None:
        progress(f"{stage}: {examples.name}", done, total)

    if not isinstance(model, ScoredClassifier):
        return score_inputs(model, examples.x, progress=report)
    with recorded_logits(model) as logits:
        outputs = score_inputs(model, examples.x, progress=report)
    return outputs | {LOGITS: restore_order(logits.array(), scoring_order(examples.x))}


def _stage_scores(
    run: Run,
    stage: str,
    calibrations: Mapping[str, Calibration],
    test: Examples,
    sets: Mapping[str, Examples],
    progress: Progress,
) -> StageScores:
    """The scores of one stage on the in-distribution test set and on the out-of-distribution sets."""
    model = _model(run, stage, len(test.labels))
    names = run.recipe.export.scores
    outputs = _score(model, test, stage, progress)
    ood_outputs = {name: _score(model, examples, stage, progress) for name, examples in sets.items()}
    error, logits = None, None
    if LOGITS in outputs:
        error = float(np.mean(outputs["prediction"] != test.targets()))
        logits = stage_logits(outputs, test.targets(), ood_outputs, load_temperature(run, stage))
    return StageScores(
        in_dist=anomalies(outputs, names),
        ood={name: anomalies(values, names) for name, values in ood_outputs.items()},
        calibrations=calibrations,
        error=error,
        logits=logits,
    )


def _segment_scores(
    run: Run, in_dist: InDistributionData, sets: Mapping[str, Examples], progress: Progress
) -> SegmentScores | None:
    """The scores of a language model's stages on segments; None for other models and for too few texts."""
    config = run.recipe.input
    if run.recipe.task != "language-model" or not isinstance(config, TextConfig):
        return None
    symbols = SEGMENT_SYMBOLS[config.unit]
    stages: dict[str, StageScores] = {}
    for stage in run.recipe.stages:
        model = _model(run, stage, len(in_dist.test.labels))
        assert isinstance(model, ScoredLanguageModel), "the recipe's task is language-model"
        scores = segment_scores(
            model,
            symbols,
            stage=stage,
            calibration=in_dist.calibration,
            test=in_dist.test,
            sets=sets,
            progress=progress,
        )
        if scores is None:
            return None
        stages[stage] = scores
    return SegmentScores(symbols, stages)


def _describe(config: Source | Synthetic, loaded: EvaluationSet) -> str:
    """The report's description of an out-of-distribution set: size, source, and the inputs left out of it."""
    if isinstance(config, Synthetic):
        path = f"through JPEG quality {config.jpeg_quality}" if config.jpeg_quality else "not through JPEG"
        contrast = f", {_SPACES[config.space]}" if config.synthetic in NOISE else ""
        return f"{len(loaded.examples):,} synthetic images ({config.synthetic}){contrast}, {path}"
    left_out = [f"{loaded.trained_on:,} (nearly) outliers that were trained on"] if loaded.trained_on else []
    left_out += [f"{loaded.unknown:,} texts of unknown tokens only"] if loaded.unknown else []
    removed = f"left out {' and '.join(left_out)}" if left_out else "none of them trained on"
    return f"{len(loaded.examples):,} examples of {config.path}, {removed}"


def _upper_bounds(recipe: Recipe, outliers: Examples | None, sets: Mapping[str, Examples]) -> list[str]:
    """The sets that come from the training outliers' files, unless they consist of other sub-folders or labels."""
    if outliers is None or recipe.outliers is None or not isinstance(recipe.outliers.train, Source):
        return []
    trained = recipe.outliers.train
    return [
        name
        for name, config in recipe.evaluation.sets.items()
        if isinstance(config, Source)
        and (config.format, config.split) == (trained.format, trained.split)
        and {config.path, *config.also} & {trained.path, *trained.also}
        and not (outliers.labels and sets[name].labels and set(outliers.labels).isdisjoint(sets[name].labels))
    ]


def _shortcuts(run: Run) -> ShortcutCheck | None:
    """The saved shortcut check; None if there is none, or if it is of other data than the recipe's."""
    recipe = run.recipe
    if not run.shortcuts_path.exists() or recipe.outliers is None or isinstance(recipe.outliers.train, Synthetic):
        return None
    check = ShortcutCheck.model_validate_json(run.shortcuts_path.read_text(encoding="utf-8"))
    paths = (recipe.in_distribution.train.path, recipe.outliers.train.path)
    return check if (check.in_distribution, check.outliers) == paths else None


def _recalls(recipe: Recipe) -> tuple[float, ...]:
    """The recalls at which the report has false positive rates, in addition to 0.95."""
    if recipe.evaluation.recalls is not None:
        return recipe.evaluation.recalls
    return (TEXT_RECALL,) if isinstance(recipe.input, TextConfig) else ()


def _describe_test_set(recipe: Recipe) -> str:
    data = recipe.in_distribution
    return f"{data.train.path}, held out" if data.test is None else data.test.path


def _provenance(run: Run) -> dict[str, str]:
    facts = {"recipe": f"{run.recipe.name}.yaml, seed {run.recipe.seed}"}
    for name in run.recipe.stages:
        record = run.record(name)
        facts[f"stage {name}"] = f"{record.epochs} epochs in {record.seconds / 60:.0f} minutes on {record.hardware}"
    return facts


def _left_out(reader: Reader) -> dict[str, str]:
    """The entry of the report on inputs that are left out because they cannot be used; none without any."""
    if not reader.left_out:
        return {}
    counts = Counter(problem.source for problem in reader.left_out)
    listed = ", ".join(f"{count:,} of {printable(source)}" for source, count in counts.items())
    return {"broken inputs": f"left out: {listed}"}


def _report(run: Run) -> Report | None:
    """The run's report, or None if the run is not evaluated."""
    path = run.report_path / "report.json"
    return Report.from_json(path.read_text(encoding="utf-8")) if path.exists() else None
