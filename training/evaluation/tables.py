"""Tables: the report as Markdown, baseline beside Outlier Exposure, the better figure bold."""

from collections.abc import Callable, Sequence

from bundle import SCORES
from training.evaluation.comparison import comparison_section
from training.evaluation.markdown_table import markdown_table
from training.evaluation.probability_table import probability_section
from training.evaluation.report import INSIDE, MEAN, Report, SetResult, Spread

_METRICS: Sequence[tuple[str, str, bool, Callable[[SetResult], Spread]]] = (
    ("FPR95", "fpr95", False, lambda row: row.fpr95),
    ("AUROC", "auroc", True, lambda row: row.auroc),
    ("AUPR", "aupr", True, lambda row: row.aupr),
)


def markdown(report: Report, title: str) -> str:
    """The whole report as a Markdown page."""
    stages = report.stages
    scores = [report.default_score, *(s for s in _scores(report) if s != report.default_score)]
    parts = [
        f"# {title}",
        f"In-distribution test set: {report.inside}, {report.inside_size:,} inputs. Percent; FPR at 95% TPR (lower is "
        f"better), AUROC, AUPR. Outliers are positive, one per five in-distribution inputs, mean ± standard deviation "
        f"over {report.draws} draws (in the last row: over the sets).",
    ]
    if report.error:
        parts.append(
            "| " + " | ".join(("", *stages)) + " |\n" + "| --- " * (len(stages) + 1) + "|\n"
            "| classification error | " + " | ".join(f"{report.error[stage]:.2f}" for stage in stages) + " |"
        )
    if report.comparison is not None:
        parts += comparison_section(report.comparison)
    if report.bits:
        parts += ["## Mean bits", _bits(report, stages)]
    tested = [*report.test_sets, MEAN]
    for score in scores:
        parts += [f"## By {SCORES[score].title} (`{score}`)", _detection(report, stages, score, tested)]
    if report.validation:
        parts += [
            f"## Validation sets (`{report.default_score}`)",
            "For choosing between settings without a look at a test set; no part of the averages above.",
            _detection(report, stages, report.default_score, report.validation),
        ]
    parts += [
        f"## Flags at alpha = {report.alpha:g}",
        f"Calibrated on {report.calibration_size:,} held-out in-distribution inputs. The in-distribution row is the "
        f"false-flag rate, {100 * report.alpha:g}% by design; the others are the share of each set that is caught.",
        _flags(report, stages),
        *probability_section(report),
        "## The sets",
        "\n".join(f"- **{name}**: {words}" for name, words in report.sets.items()),
        "## Provenance",
        "\n".join(f"- {key}: {value}" for key, value in report.provenance.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _scores(report: Report) -> list[str]:
    return list(dict.fromkeys(row.score for row in report.false_flags))


def _bits(report: Report, stages: list[str]) -> str:
    """What is more likely than the in-distribution images (fewer bits) is bold: a likelihood alone is no detector."""
    scores = list(dict.fromkeys(row.score for row in report.bits))
    found = {(row.set, row.stage, row.score): row.bits for row in report.bits}
    columns = [(stage, score) for score in scores for stage in stages]
    lines = []
    for name in (INSIDE, *report.sets):
        cells = []
        for stage, score in columns:
            bits, inside = found[name, stage, score], found[INSIDE, stage, score]
            cells.append(f"**{bits:.2f}**" if bits < inside else f"{bits:.2f}")
        lines.append([f"*{name}*" if name == INSIDE else name, *cells])
    table = markdown_table(["set", *(f"{score} {stage}" for stage, score in columns)], lines)
    return f"{table}\n\nBold: fewer bits than in-distribution inputs, the model finds the set *more* likely."


def _detection(report: Report, stages: list[str], score: str, sets: Sequence[str]) -> str:
    head = ["out-of-distribution set", *(f"{label} {stage}" for label, *_ in _METRICS for stage in stages)]
    lines = []
    for name in sets:
        rows = [report.find(name, stage, score) for stage in stages]
        cells = []
        for _, _, higher, pick in _METRICS:
            found = [pick(row) for row in rows]
            best = (max if higher else min)(spread.mean for spread in found)
            for spread in found:
                text = f"{spread.mean:.2f} ± {spread.deviation:.2f}"
                cells.append(f"**{text}**" if spread.mean == best and len(found) > 1 else text)
        lines.append([f"*{name}*" if name == MEAN else name, *cells])
    return markdown_table(head, lines)


def _flags(report: Report, stages: list[str]) -> str:
    scores = _scores(report)
    columns = [(stage, score) for score in scores for stage in stages]
    false = {(row.stage, row.score): row.flagged for row in report.false_flags}
    lines = [[f"*{INSIDE}*", *(f"{false[column]:.2f}" for column in columns)]]
    for name in report.sets:
        lines.append([name, *(f"{report.find(name, stage, score).flagged:.2f}" for stage, score in columns)])
    return markdown_table(["set", *(f"{score} {stage}" for stage, score in columns)], lines)
