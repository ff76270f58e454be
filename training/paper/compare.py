"""Tables of the paper with the figures of bundles next to the paper's own, for a terminal or as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from training.evaluation import ProbabilityResult, markdown_table
from training.paper.detection_table import detection_head, detection_rows, improvement_note, lacking_note
from training.paper.figures import Experiment, PaperTable
from training.paper.reports import BundleReport

NOT_RUN = "not run at paper scale"

_ARROW = "baseline → Outlier Exposure, a stage between them in its place"

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
    rows = []
    for experiment in table.experiments:
        rows += _detection(table, experiment, reports.get(experiment.recipe))
    about = (
        f"{_ARROW}, percent. FPR by the tie rule of the authors' code: the lowest of the thresholds with equal recall "
        "counts. The last column: shares that the last stage's calibrated thresholds flag. Figures of the paper are "
        "beside a bundle's only if both are of the same sets."
    )
    notes = [about, *([] if table.note is None else [table.note]), *notes]
    return ComparisonTable(table.title, detection_head(table), rows, notes, text_columns=3)


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
                notes += improvement_note(table, experiment, bundle) + lacking_note(table, bundle)
            if experiment.note is not None:
                notes.append(f"{experiment.in_dist}: {experiment.note}")
    return notes


def _not_run(experiment: Experiment) -> str:
    file = experiment.recipe_file
    return NOT_RUN if file is None else f"{NOT_RUN} ({file})"


def _detection(table: PaperTable, experiment: Experiment, bundle: BundleReport | None) -> list[list[str]]:
    """The rows of an experiment; without a bundle that was measured by the table's score, the paper's figures only."""
    if bundle is None:
        return detection_rows(table, experiment, None, _not_run(experiment))
    if not any(row.score == table.score for row in bundle.report.results):
        return detection_rows(table, experiment, None, f"{bundle.title}: no {table.score} in its report")
    return detection_rows(table, experiment, bundle, bundle.title)


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


def _arrow(stages: Sequence[ProbabilityResult], metric: str) -> str:
    """The metric's values of `stages`, joined by arrows; a single stage, without a baseline, gets a leading arrow."""
    values = [f"{getattr(stage, metric):.1f}" for stage in stages]
    return " → ".join(values if len(values) > 1 else ["", *values]).strip()
