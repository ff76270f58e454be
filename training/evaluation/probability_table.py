"""The report's section on probabilities: calibration errors and soft F1, stages side by side."""

from collections.abc import Callable, Sequence

from training.evaluation.markdown_table import markdown_table
from training.evaluation.probabilities import BIN_SIZE
from training.evaluation.report import Report
from training.evaluation.stage_probabilities import ProbabilityResult

_MEASURES: Sequence[tuple[str, bool, Callable[[ProbabilityResult], float]]] = (
    ("RMS", False, lambda row: row.rms),
    ("MAD", False, lambda row: row.mad),
    ("soft F1", True, lambda row: row.soft_f1),
)


def probability_section(report: Report) -> list[str]:
    """Markdown paragraphs; none for a report without probabilities."""
    if not report.probabilities:
        return []
    stages = list(dict.fromkeys(row.stage for row in report.probabilities))
    tuned = ", ".join(f"{row.stage} {row.temperature:.3f}" for row in _alike(report, "in-distribution", True))
    cases = dict.fromkeys((row.inputs, row.tuned) for row in report.probabilities)
    return [
        "## Calibration of probabilities",
        f"Percent: RMS and MAD calibration error of the maximum softmax probability over bins of {BIN_SIZE} "
        f"predictions (lower is better); soft F1 of finding wrong predictions by their low probability (higher is "
        f"better). *Mixture* adds one out-of-distribution test input per five in-distribution ones, in equal shares of "
        f"the test sets; each prediction on one is wrong, and probabilities are rescaled from [1/K, 1] to [0, 1]. "
        f"Temperature, tuned on the calibration split: {tuned}. Scores, p-values and flags do not use it.",
        markdown_table(
            ["inputs", *(f"{name} {stage}" for name, *_ in _MEASURES for stage in stages)],
            [_row(_alike(report, *case)) for case in cases],
        ),
    ]


def _alike(report: Report, inputs: str, tuned: bool) -> list[ProbabilityResult]:
    return [row for row in report.probabilities if (row.inputs, row.tuned) == (inputs, tuned)]


def _row(stages: list[ProbabilityResult]) -> list[str]:
    first = stages[0]
    cells = [f"{first.inputs}{', with temperature' if first.tuned else ''} ({first.size:,})"]
    for _, higher, pick in _MEASURES:
        values = [pick(row) for row in stages]
        best = (max if higher else min)(values)
        cells += [f"**{value:.2f}**" if value == best and len(values) > 1 else f"{value:.2f}" for value in values]
    return cells
