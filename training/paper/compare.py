"""Comparisons: a table of the paper as text cells, what the bundles measured beside what the paper reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.evaluation import ProbabilityResult, SetResult
from training.evaluation.report import MEAN
from training.paper.figures import Experiment, Figures, PaperTable
from training.paper.reports import Measured

NOT_RUN = "not run at paper scale"

_ARROW = "baseline → Outlier Exposure, a stage between them in its place"

_METRICS = {"FPR95": "fpr95", "AUROC": "auroc", "AUPR": "aupr"}
_BEST = {"fpr95": 0.0, "auroc": 100.0, "aupr": 100.0}
_ERRORS = {"RMS": "rms", "MAD": "mad", "soft F1": "soft_f1"}


@dataclass(frozen=True)
class Comparison:
    """A table of text: `rows` below `head`, whose first `text_columns` are words, and notes on what was run."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    text_columns: int


def compare(table: PaperTable, measured: Mapping[str, Measured]) -> Comparison:
    """Fill the rows of `table` with what was `measured`, by recipe name."""
    notes = _notes(table, measured)
    if table.score is None:
        head = ["data", "run", "inputs", *_ERRORS]
        rows = [row for each in table.experiments for row in _probabilities(each, measured.get(each.recipe))]
        about = (
            f"{_ARROW}, percent; T: with temperature. "
            "Mixture: with one out-of-distribution test input per five in-distribution ones."
        )
        return Comparison(table.title, head, rows, [about, *notes], text_columns=3)
    head = ["data", "run", *(name for label in _METRICS for name in (label, "paper"))]
    rows = [_detection(each, measured.get(each.recipe), table.score) for each in table.experiments]
    about = f"{_ARROW}, percent, mean over the test sets, which are not in every case the paper's."
    return Comparison(table.title, head, rows, [about, *notes], text_columns=2)


def _notes(table: PaperTable, measured: Mapping[str, Measured]) -> list[str]:
    notes = []
    for each in table.experiments:
        if each.paper is not None and each.paper.source is not None:
            notes.append(f"{each.inside}: paper's figures {each.paper.source}.")
        run = measured.get(each.recipe)
        if run is not None:
            notes.append(f"{run.title}: {run.scale}. Test sets: {', '.join(run.report.test_sets)}.")
            if table.score is not None:
                notes += _gains(each, run, table.score)
    return notes


def _gains(experiment: Experiment, run: Measured, score: str) -> list[str]:
    """Whether the last stage beats the baseline on every test set, or else where not, by which metric, and why."""
    found = {(row.set, row.stage): _figures(row) for row in run.report.results if row.score == score}
    if len(run.stages) < 2 or not found:
        return []
    missed = []
    for name in run.report.test_sets:
        before, after = found[name, run.stages[0]], found[name, run.stages[-1]]
        worse = [
            f"{label} {_arrow([before, after], pick, digits=2)}"
            for label, pick in _METRICS.items()
            if not _better(getattr(before, pick), getattr(after, pick), best=_BEST[pick])
        ]
        if worse:
            missed.append(f"{name} ({', '.join(worse)})")
    if not missed:
        return [f"{run.title}: better than its baseline on every test set by all three metrics."]
    why = f" {experiment.why}" if experiment.why else ""
    return [f"{run.title}: not better than its baseline on {', '.join(missed)}.{why}"]


def _better(before: float, after: float, best: float) -> bool:
    """Whether `after` is nearer to the `best` value there is, or both are there."""
    return abs(after - best) < abs(before - best) or before == after == best


def _not_run(experiment: Experiment) -> str:
    file = experiment.recipe_file
    return NOT_RUN if file is None else f"{NOT_RUN} ({file})"


def _detection(experiment: Experiment, run: Measured | None, score: str) -> list[str]:
    title, ours = _not_run(experiment), [""] * len(_METRICS)
    if run is not None and not any(row.score == score for row in run.report.results):
        title = f"{run.title}: no {score} in its report"
    elif run is not None:
        means = [_figures(run.report.find(MEAN, stage, score)) for stage in run.stages]
        title, ours = run.title, [_arrow(means, pick) for pick in _METRICS.values()]
    cells = [experiment.inside, title]
    for own, pick in zip(ours, _METRICS.values(), strict=True):
        paper = experiment.paper
        cells += [own, "" if paper is None else _arrow([paper.baseline, paper.exposed], pick)]
    return cells


def _figures(row: SetResult) -> Figures:
    return Figures(fpr95=row.fpr95.mean, auroc=row.auroc.mean, aupr=row.aupr.mean)


def _probabilities(experiment: Experiment, run: Measured | None) -> list[list[str]]:
    """A row for each kind of inputs, without and with temperature."""
    blank = [""] * (len(_ERRORS) + 1)
    if run is None:
        return [[experiment.inside, _not_run(experiment), *blank]]
    found = {(row.inputs, row.tuned, row.stage): row for row in run.report.probabilities}
    if not found:
        return [[experiment.inside, f"{run.title}: no probabilities in its report", *blank]]
    rows = []
    for inputs, tuned in dict.fromkeys((row.inputs, row.tuned) for row in run.report.probabilities):
        stages = [found[inputs, tuned, stage] for stage in run.stages]
        cells = [_arrow(stages, pick) for pick in _ERRORS.values()]
        rows.append([experiment.inside, run.title, f"{inputs}, T" if tuned else inputs, *cells])
    return rows


def _arrow(stages: Sequence[Figures | ProbabilityResult], pick: str, digits: int = 1) -> str:
    """The figures of `stages` in their order; a run of one stage has no baseline before its own."""
    values = [f"{getattr(stage, pick):.{digits}f}" for stage in stages]
    return " → ".join(values if len(values) > 1 else ["", *values]).strip()
