"""Tables of the paper with the figures of bundles next to the paper's own, for a terminal or as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from training.evaluation import ProbabilityResult, SetResult, markdown_table
from training.evaluation.report import MEAN
from training.paper.figures import Experiment, Figures, PaperTable
from training.paper.reports import BundleReport

NOT_RUN = "not run at paper scale"

_ARROW = "baseline → Outlier Exposure, a stage between them in its place"

_METRICS = {"FPR95": "fpr95", "AUROC": "auroc", "AUPR": "aupr"}
_BEST = {"fpr95": 0.0, "auroc": 100.0, "aupr": 100.0}
_ERRORS = {"RMS": "rms", "MAD": "mad", "soft F1": "soft_f1"}


@dataclass(frozen=True)
class ComparisonTable:
    """A table of text cells with notes below it; the first `text_columns` columns hold words, the others figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    text_columns: int


def compare(table: PaperTable, reports: Mapping[str, BundleReport]) -> ComparisonTable:
    """The paper's `table` with the figures of `reports`, which are by recipe name."""
    notes = _notes(table, reports)
    if table.score is None:
        head = ["data", "run", "inputs", *_ERRORS]
        rows = []
        for experiment in table.experiments:
            rows += _probabilities(experiment, reports.get(experiment.recipe))
        about = (
            f"{_ARROW}, percent; T: with temperature. "
            "Mixture: with one out-of-distribution test input per five in-distribution ones."
        )
        return ComparisonTable(table.title, head, rows, [about, *notes], text_columns=3)
    head = ["data", "run", *(name for label in _METRICS for name in (label, "paper"))]
    rows = [_detection(experiment, reports.get(experiment.recipe), table.score) for experiment in table.experiments]
    about = f"{_ARROW}, percent, mean over the test sets, which are not in every case the paper's."
    return ComparisonTable(table.title, head, rows, [about, *notes], text_columns=2)


def as_text(table: ComparisonTable) -> Group:
    """The table for a Rich console."""
    rich_table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=Text(table.title, style="bold"),
        title_justify="left",
    )
    for i, name in enumerate(table.head):
        rich_table.add_column(name, justify="left" if i < table.text_columns else "right", overflow="fold")
    for row in table.rows:
        rich_table.add_row(*(Text(cell) for cell in row))
    return Group(rich_table, *(Text(note, style="dim") for note in table.notes), Text())


def as_markdown(table: ComparisonTable) -> str:
    """The table as a Markdown section with its notes."""
    rows = markdown_table(table.head, table.rows, text_columns=table.text_columns)
    return "\n\n".join([f"### {table.title}", rows, "\n".join(f"- {note}" for note in table.notes)]) + "\n"


def _notes(table: PaperTable, reports: Mapping[str, BundleReport]) -> list[str]:
    notes = []
    for experiment in table.experiments:
        if experiment.paper is not None and experiment.paper.source is not None:
            notes.append(f"{experiment.in_dist}: paper's figures {experiment.paper.source}.")
        bundle = reports.get(experiment.recipe)
        if bundle is not None:
            notes.append(f"{bundle.title}: {bundle.scale}. Test sets: {', '.join(bundle.report.test_sets)}.")
            if table.score is not None:
                notes += _improvement_note(experiment, bundle, table.score)
    return notes


def _improvement_note(experiment: Experiment, bundle: BundleReport, score: str) -> list[str]:
    """A note on whether the last stage beats the baseline on every test set, and otherwise on which not, and why."""
    figures = {(row.set, row.stage): _figures(row) for row in bundle.report.results if row.score == score}
    if len(bundle.stages) < 2 or not figures:
        return []
    not_better = []
    for name in bundle.report.test_sets:
        before, after = figures[name, bundle.stages[0]], figures[name, bundle.stages[-1]]
        metrics = [
            f"{label} {_arrow([before, after], metric, digits=2)}"
            for label, metric in _METRICS.items()
            if not _is_better(getattr(before, metric), getattr(after, metric), best=_BEST[metric])
        ]
        if metrics:
            not_better.append(f"{name} ({', '.join(metrics)})")
    if not not_better:
        return [f"{bundle.title}: better than its baseline on every test set by all three metrics."]
    why = f" {experiment.why}" if experiment.why else ""
    return [f"{bundle.title}: not better than its baseline on {', '.join(not_better)}.{why}"]


def _is_better(before: float, after: float, best: float) -> bool:
    """Whether `after` is nearer to the `best` possible value, or both have that value."""
    return abs(after - best) < abs(before - best) or before == after == best


def _not_run(experiment: Experiment) -> str:
    file = experiment.recipe_file
    return NOT_RUN if file is None else f"{NOT_RUN} ({file})"


def _detection(experiment: Experiment, bundle: BundleReport | None, score: str) -> list[str]:
    title, measured = _not_run(experiment), [""] * len(_METRICS)
    if bundle is not None and not any(row.score == score for row in bundle.report.results):
        title = f"{bundle.title}: no {score} in its report"
    elif bundle is not None:
        means = [_figures(bundle.report.find(MEAN, stage, score)) for stage in bundle.stages]
        title, measured = bundle.title, [_arrow(means, metric) for metric in _METRICS.values()]
    cells = [experiment.in_dist, title]
    for cell, metric in zip(measured, _METRICS.values(), strict=True):
        paper = experiment.paper
        cells += [cell, "" if paper is None else _arrow([paper.baseline, paper.exposed], metric)]
    return cells


def _figures(row: SetResult) -> Figures:
    return Figures(fpr95=row.fpr95.mean, auroc=row.auroc.mean, aupr=row.aupr.mean)


def _probabilities(experiment: Experiment, bundle: BundleReport | None) -> list[list[str]]:
    """One row per kind of inputs, without and with temperature."""
    blank = [""] * (len(_ERRORS) + 1)
    if bundle is None:
        return [[experiment.in_dist, _not_run(experiment), *blank]]
    results = {(row.inputs, row.with_temperature, row.stage): row for row in bundle.report.probabilities}
    if not results:
        return [[experiment.in_dist, f"{bundle.title}: no probabilities in its report", *blank]]
    rows = []
    for inputs, with_temperature in dict.fromkeys(key[:2] for key in results):
        stages = [results[inputs, with_temperature, stage] for stage in bundle.stages]
        cells = [_arrow(stages, metric) for metric in _ERRORS.values()]
        rows.append([experiment.in_dist, bundle.title, f"{inputs}, T" if with_temperature else inputs, *cells])
    return rows


def _arrow(stages: Sequence[Figures | ProbabilityResult], metric: str, digits: int = 1) -> str:
    """The metric's values of `stages`, joined by arrows; a single stage, without a baseline, gets a leading arrow."""
    values = [f"{getattr(stage, metric):.{digits}f}" for stage in stages]
    return " → ".join(values if len(values) > 1 else ["", *values]).strip()
