"""Rows and notes of a detection table: a bundle's figures set by set, beside the paper's figures of the same set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation import SetResult
from training.evaluation.report import FAR_MEAN, MEAN, NEAR_MEAN
from training.paper.figures import Experiment, Pair, PaperTable
from training.paper.reports import BundleReport

AREAS = {"AUROC": "auroc", "AUPR": "aupr"}
PAPER_MEAN = "mean of the paper's sets"
FLAGGED = "flagged at 1%, 5%"
"""The title of the column with the shares that a bundle flags at 1% and 5% false flags."""

_BEST = {"fpr": 0.0, "auroc": 100.0, "aupr": 100.0}


@dataclass(frozen=True)
class _Measured:
    """One stage's figures on one set, in percent; `fpr` is None if the report lacks it.

    `fpr` is the false positive rate at the table's recall, by the tie rule of the authors' code.
    """

    fpr: float | None
    auroc: float
    aupr: float


def detection_head(table: PaperTable) -> list[str]:
    """The titles of the columns; the first three hold words."""
    metrics = [_fpr_title(table), *AREAS]
    if not any(experiment.paper for experiment in table.experiments):
        return ["data", "run", "set", *metrics, FLAGGED]
    return ["data", "run", "set", *(title for metric in metrics for title in (metric, "paper")), FLAGGED]


def detection_rows(table: PaperTable, experiment: Experiment, bundle: BundleReport | None, run: str) -> list[list[str]]:
    """The rows of an experiment: the bundle's sets, means over sets, and the paper's mean in a row of its own.

    A row has the paper's figures beside the bundle's only if both are of the same sets.

    Args:
        table: The table of the experiment.
        experiment: The experiment.
        bundle: The report of its newest bundle that has the table's score; None for the paper's figures alone.
        run: The text for the column `run`.
    """
    has_paper = any(other.paper for other in table.experiments)
    rows: list[list[str]] = []

    def add(name: str, measured: Sequence[_Measured], paper: Pair | None, flagged: str = "") -> None:
        cells = []
        for metric in ("fpr", *AREAS.values()):
            cells.append(_arrow([getattr(stage, metric) for stage in measured]))
            if has_paper:
                figures = () if paper is None else (paper.baseline, paper.exposed)
                cells.append(_arrow([getattr(figure, metric) for figure in figures]))
        labels = ["", ""] if rows else [experiment.in_dist, run]
        rows.append([*labels, name, *cells, flagged])

    paper_sets = {} if experiment.paper is None else experiment.paper.sets
    if bundle is not None and table.score is not None:
        report = bundle.report
        for name in report.test_sets:
            results = [report.find(name, stage, table.score) for stage in bundle.stages]
            title = f"{name} (near)" if name in report.near else name
            add(title, _measured(results, table.recall), paper_sets.get(name), _flagged(results[-1]))
        shared = [name for name in report.test_sets if name in paper_sets]
        if len(shared) > 1:
            stages = [[report.find(name, stage, table.score) for name in shared] for stage in bundle.stages]
            measured = [_mean(_measured(results, table.recall)) for results in stages]
            add(f"mean of the {len(shared)} sets that both have", measured, _mean_pair(paper_sets, shared))
        for mean, names in report.grouped_test_sets.items():
            results = [report.find(mean, stage, table.score) for stage in bundle.stages]
            add(_mean_title(mean, len(names)), _measured(results, table.recall), None, _flagged(results[-1]))
    if experiment.paper is not None:
        add(PAPER_MEAN, (), experiment.paper.mean)
    return rows or [[experiment.in_dist, run, *[""] * (len(detection_head(table)) - 2)]]


def lacking_note(table: PaperTable, bundle: BundleReport) -> list[str]:
    """A note on the figures of the table that the bundle's report does not have, because it is of an older version."""
    lacking = []
    if table.recall not in bundle.report.recalls:
        lacking.append(f"{_fpr_title(table)} by the authors' tie rule")
    if not all(row.flagged_at for row in bundle.report.results):
        lacking.append("shares flagged at 1% and 5%")
    if not lacking:
        return []
    return [f"{bundle.title}: its report has no {' and no '.join(lacking)}. Evaluate the run and export it again."]


def improvement_note(table: PaperTable, experiment: Experiment, bundle: BundleReport) -> list[str]:
    """A note on whether the last stage beats the baseline on every test set, and otherwise on which not, and why."""
    report, score = bundle.report, table.score
    if len(bundle.stages) < 2 or score is None or not any(row.score == score for row in report.results):
        return []
    metrics = {_fpr_title(table): "fpr", **AREAS}
    not_better = []
    for name in report.test_sets:
        results = [report.find(name, stage, score) for stage in (bundle.stages[0], bundle.stages[-1])]
        before, after = _measured(results, table.recall)
        worse = []
        for title, metric in metrics.items():
            values = getattr(before, metric), getattr(after, metric)
            if None not in values and not _is_better(*values, best=_BEST[metric]):
                worse.append(f"{title} {_arrow(values, digits=2)}")
        if worse:
            not_better.append(f"{name} ({', '.join(worse)})")
    if not not_better:
        measured = " and ".join(AREAS) if table.recall not in report.recalls else "all three metrics"
        return [f"{bundle.title}: better than its baseline on every test set by {measured}."]
    why = f" {experiment.why}" if experiment.why else ""
    return [f"{bundle.title}: not better than its baseline on {', '.join(not_better)}.{why}"]


def _measured(results: Sequence[SetResult], recall: float) -> list[_Measured]:
    figures = []
    for result in results:
        rates = result.rates_at(recall)
        fpr = None if rates is None else rates.authors.mean
        figures.append(_Measured(fpr=fpr, auroc=result.auroc.mean, aupr=result.aupr.mean))
    return figures


def _mean(sets: Sequence[_Measured]) -> _Measured:
    rates = [figures.fpr for figures in sets if figures.fpr is not None]
    return _Measured(
        fpr=float(np.mean(rates)) if len(rates) == len(sets) else None,
        auroc=float(np.mean([figures.auroc for figures in sets])),
        aupr=float(np.mean([figures.aupr for figures in sets])),
    )


def _mean_pair(sets: Mapping[str, Pair], names: Sequence[str]) -> Pair:
    columns = [np.mean([getattr(sets[name], stage) for name in names], axis=0).tolist() for stage in Pair.model_fields]
    return Pair.model_validate(dict(zip(Pair.model_fields, columns, strict=True)))


def _mean_title(mean: str, n: int) -> str:
    kind = {NEAR_MEAN: "near ", FAR_MEAN: "far ", MEAN: ""}[mean]
    return f"mean of the bundle's {n} {kind}{'set' if n == 1 else 'sets'}"


def _flagged(result: SetResult) -> str:
    return ", ".join("-" if share.flagged is None else f"{share.flagged:.1f}" for share in result.flagged_at)


def _fpr_title(table: PaperTable) -> str:
    return f"FPR{100 * table.recall:g}"


def _is_better(before: float, after: float, best: float) -> bool:
    """Whether `after` is nearer to the `best` possible value, or both have that value."""
    return abs(after - best) < abs(before - best) or before == after == best


def _arrow(values: Sequence[float | None], digits: int = 1) -> str:
    """The values joined by arrows; a single value, without a baseline, gets a leading arrow. Blank if one is None."""
    if not values or None in values:
        return ""
    texts = [f"{value:.{digits}f}" for value in values]
    return " → ".join(texts if len(texts) > 1 else ["", *texts]).strip()
