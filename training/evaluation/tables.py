"""The report as a Markdown page with tables: stages side by side, the better figure in bold."""

from collections.abc import Callable, Sequence
from functools import partial

from bundle import SCORES, false_flag_rate
from training.evaluation.comparison import PrecisionComparison
from training.evaluation.detection import RECALL
from training.evaluation.probabilities import BIN_SIZE
from training.evaluation.report import IN_DISTRIBUTION, MEAN, FalseFlags, Report, SetResult, Spread
from training.evaluation.stage_probabilities import ProbabilityResult

# Column title, whether larger values are better, and the value of a row.
_Metric = tuple[str, bool, Callable[[SetResult], Spread]]
_AREAS: Sequence[_Metric] = (("AUROC", True, lambda row: row.auroc), ("AUPR", True, lambda row: row.aupr))
_CALIBRATION_MEASURES: Sequence[tuple[str, bool, Callable[[ProbabilityResult], float]]] = (
    ("RMS", False, lambda row: row.rms),
    ("MAD", False, lambda row: row.mad),
    ("soft F1", True, lambda row: row.soft_f1),
)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> str:
    """A Markdown table; the first `text_columns` columns are left-aligned, the others, with figures, right-aligned."""
    rule = ["---"] * text_columns + ["---:"] * (len(head) - text_columns)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def markdown(report: Report, title: str) -> str:
    """The report as a Markdown page."""
    stages = report.stages
    scores = [report.default_score, *(s for s in _scores(report) if s != report.default_score)]
    parts = [
        f"# {title}",
        *([] if report.usability is None else [f"**{report.usability}**"]),
        f"In-distribution test set: {report.in_dist}, {report.in_dist_size:,} inputs. Percent; FPR at "
        f"{_recalls(report)} TPR (lower is better), AUROC, AUPR. Outliers are positive, one per five in-distribution "
        f"inputs, mean ± standard deviation over {report.draws} draws (in rows of means: over the sets). Of the "
        "thresholds with equal TPR, FPR is that of the highest. The lowest, as in the authors' code, is in "
        "`report.json`.",
    ]
    if report.error:
        parts.append(
            "| " + " | ".join(("", *stages)) + " |\n" + "| --- " * (len(stages) + 1) + "|\n"
            "| classification error | " + " | ".join(f"{report.error[stage]:.2f}" for stage in stages) + " |"
        )
    if report.default_score_reason:
        parts.append(f"Default score: `{report.default_score}`, {report.default_score_reason}.")
    parts += _limitations(report)
    if report.comparison is not None:
        parts += _precision_section(report.comparison)
    if report.bits:
        parts += ["## Mean bits", _bits(report, stages)]
    tested = _rows(report)
    for score in scores:
        parts += [f"## By {SCORES[score].title} (`{score}`)", _detection(report, stages, score, tested)]
    if report.validation:
        parts += [
            f"## Validation sets (`{report.default_score}`)",
            "For choosing between settings without a look at a test set; no part of the averages above.",
            _detection(report, stages, report.default_score, report.validation),
        ]
    if (by_segment := report.by_segment) is not None:
        parts += _segment_section(by_segment, scores)
    parts += [
        f"## Flags at alpha = {report.alpha:g}",
        f"Calibrated on {report.calibration_size:,} held-out in-distribution inputs. The in-distribution row is the "
        "false-flag rate on the test set; the others are the share of each set that is caught.",
        f"Guarantee: {false_flag_rate(report.calibration_size, report.alpha)}.",
        _flags(report, stages),
        *_operator_section(report, stages),
        *_probability_section(report),
        "## The sets",
        "\n".join(f"- **{name}**: {words}" for name, words in report.sets.items()),
        "## Provenance",
        "\n".join(f"- {key}: {value}" for key, value in report.provenance.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _limitations(report: Report) -> list[str]:
    """The paragraphs on sets like the outliers trained on, and on shortcuts in the training data."""
    paragraphs = []
    if report.upper_bounds:
        names = ", ".join(report.upper_bounds)
        paragraphs.append(
            f"**Upper bound: {names}.** Outliers like those trained on: of the same source, not seen in training. The "
            "detection of inputs from other sources is at most as good."
        )
    if report.shortcuts is not None and report.shortcuts.warnings:
        paragraphs += ["## Shortcuts", "\n".join(f"- {warning}" for warning in report.shortcuts.warnings)]
    return paragraphs


def _scores(report: Report) -> list[str]:
    return list(dict.fromkeys(row.score for row in report.false_flags))


def _bits(report: Report, stages: list[str]) -> str:
    """Mean bits per set; bold if fewer than in-distribution, which shows that a likelihood alone is no detector."""
    scores = list(dict.fromkeys(row.score for row in report.bits))
    bits = {(row.set, row.stage, row.score): row.bits for row in report.bits}
    columns = [(stage, score) for score in scores for stage in stages]
    lines = []
    for name in (IN_DISTRIBUTION, *report.sets):
        cells = []
        for stage, score in columns:
            value, in_dist = bits[name, stage, score], bits[IN_DISTRIBUTION, stage, score]
            cells.append(f"**{value:.2f}**" if value < in_dist else f"{value:.2f}")
        lines.append([f"*{name}*" if name == IN_DISTRIBUTION else name, *cells])
    table = markdown_table(["set", *(f"{score} {stage}" for stage, score in columns)], lines)
    return f"{table}\n\nBold: fewer bits than in-distribution inputs, the model finds the set *more* likely."


def _detection(report: Report, stages: list[str], score: str, sets: Sequence[str]) -> str:
    metrics = [*_fpr_columns(report), *_AREAS]
    head = ["out-of-distribution set", *(f"{label} {stage}" for label, *_ in metrics for stage in stages)]
    lines = []
    for name in sets:
        rows = [report.find(name, stage, score) for stage in stages]
        cells = []
        for _, larger_is_better, metric in metrics:
            spreads = [metric(row) for row in rows]
            best = (max if larger_is_better else min)(spread.mean for spread in spreads)
            for spread in spreads:
                text = f"{spread.mean:.2f} ± {spread.deviation:.2f}"
                cells.append(f"**{text}**" if spread.mean == best and len(spreads) > 1 else text)
        lines.append([_set_title(report, name), *cells])
    return markdown_table(head, lines)


def _rows(report: Report) -> list[str]:
    """The test sets and their means; near sets, far sets and all, each followed by its mean."""
    groups = report.grouped_test_sets
    sets = [row for mean, group in groups.items() if mean != MEAN for row in (*group, mean)]
    return [*(sets or report.test_sets), MEAN]


def _set_title(report: Report, name: str) -> str:
    return name if name in report.sets else f"*{name}*"


def _recalls(report: Report) -> str:
    """The recalls of the FPR columns, such as "95% and 90%"."""
    return " and ".join(f"{100 * recall:g}%" for recall in report.recalls or [RECALL])


def _fpr_columns(report: Report) -> list[_Metric]:
    """FPR at 95% TPR and at the other recalls that the report has."""

    def column(i: int, recall: float) -> _Metric:
        return f"FPR{100 * recall:g}", False, lambda row: row.fpr_at_recall[i].fpr

    columns = [column(i, recall) for i, recall in enumerate(report.recalls)]
    return columns or [("FPR95", False, lambda row: row.fpr95)]


def _operator_section(report: Report, stages: list[str]) -> list[str]:
    """The flagged shares at 1% and 5% false flags, except at the report's alpha, whose section precedes this one."""
    paragraphs = []
    shares = report.false_flags[0].flagged_at if report.false_flags else []
    for i, share in enumerate(shares):
        if share.alpha == report.alpha:
            continue
        paragraphs.append(f"## Flags at alpha = {share.alpha:g}")
        if share.flagged is None:
            paragraphs.append(f"{report.calibration_size:,} calibration inputs are too few for a flag at this alpha.")
            continue
        paragraphs += [
            f"The share of each set that is flagged if the alpha of a request or of the bundle is {share.alpha:g}.",
            _flag_table(report, stages, partial(_flagged_at, i)),
        ]
    return paragraphs


def _flagged_at(i: int, row: SetResult | FalseFlags) -> float | None:
    return row.flagged_at[i].flagged


def _flags(report: Report, stages: list[str]) -> str:
    """The flagged shares at the report's alpha."""
    return _flag_table(report, stages, lambda row: row.flagged)


def _flag_table(report: Report, stages: list[str], flagged: Callable[[SetResult | FalseFlags], float | None]) -> str:
    """The share `flagged` of the in-distribution test set and of every other set."""
    columns = [(stage, score) for score in _scores(report) for stage in stages]
    false_flags = {(row.stage, row.score): row for row in report.false_flags}
    lines = [[f"*{IN_DISTRIBUTION}*", *(f"{flagged(false_flags[column]):.2f}" for column in columns)]]
    for name in report.sets:
        lines.append([name, *(f"{flagged(report.find(name, *column)):.2f}" for column in columns)])
    return markdown_table(["set", *(f"{score} {stage}" for stage, score in columns)], lines)


def _segment_section(by_segment: Report, scores: Sequence[str]) -> list[str]:
    """The paragraphs on segments; `by_segment` holds the figures by segment."""
    stages = by_segment.stages
    tables = [
        part
        for score in scores
        for part in (
            f"### Segments by {SCORES[score].title} (`{score}`)",
            _detection(by_segment, stages, score, [*_rows(by_segment), *by_segment.validation]),
        )
    ]
    return [
        "## By segment",
        "The unit of the paper's tables: the texts of a set are joined, with the end symbol after each, and cut into "
        f"segments of equal length, each scored from the initial state. In distribution {by_segment.in_dist_size:,} "
        f"segments, {by_segment.calibration_size:,} for calibration; "
        f"{', '.join(f'{name}: {words}' for name, words in by_segment.sets.items())}. Validation sets follow the mean.",
        *tables,
        f"### Flags of segments at alpha = {by_segment.alpha:g}",
        _flags(by_segment, stages),
    ]


def _precision_section(comparison: PrecisionComparison) -> list[str]:
    """The paragraphs on the changes in lower precision."""
    largest = comparison.largest
    rows = [
        [change.set, change.score, f"{change.before:.3f}", f"{change.after:.3f}", f"{change.points:+.3f}"]
        for change in comparison.changes
    ]
    return [
        f"## AUROC in {comparison.precision} against float32",
        f"The largest change is {largest.points:+.3f} points: {largest.set} by `{largest.score}`, from "
        f"{largest.before:.3f} to {largest.after:.3f}. An export is refused when any set moves by {comparison.limit:g} "
        "points or more, up or down.",
        markdown_table(["set", "score", comparison.full, comparison.low_precision, "change"], rows, text_columns=2),
    ]


def _probability_section(report: Report) -> list[str]:
    """The paragraphs on calibration errors and soft F1; none for a report without probabilities."""
    if not report.probabilities:
        return []
    stages = list(dict.fromkeys(row.stage for row in report.probabilities))
    cases: dict[tuple[str, bool], list[ProbabilityResult]] = {}
    for row in report.probabilities:
        cases.setdefault((row.inputs, row.with_temperature), []).append(row)
    temperatures = ", ".join(f"{row.stage} {row.temperature:.3f}" for row in cases.get((IN_DISTRIBUTION, True), []))
    return [
        "## Calibration of probabilities",
        f"Percent: RMS and MAD calibration error of the maximum softmax probability over bins of {BIN_SIZE} "
        f"predictions (lower is better); soft F1 of finding wrong predictions by their low probability (higher is "
        f"better). *Mixture* adds one out-of-distribution test input per five in-distribution ones, in equal shares of "
        f"the test sets; each prediction on one is wrong, and probabilities are rescaled from [1/K, 1] to [0, 1]. "
        f"Temperature, tuned on the calibration split: {temperatures}. Scores, p-values and flags do not use it.",
        markdown_table(
            ["inputs", *(f"{name} {stage}" for name, *_ in _CALIBRATION_MEASURES for stage in stages)],
            [_probability_row(rows) for rows in cases.values()],
        ),
    ]


def _probability_row(stages: list[ProbabilityResult]) -> list[str]:
    first = stages[0]
    cells = [f"{first.inputs}{', with temperature' if first.with_temperature else ''} ({first.size:,})"]
    for _, larger_is_better, measure in _CALIBRATION_MEASURES:
        values = [measure(row) for row in stages]
        best = (max if larger_is_better else min)(values)
        cells += [f"**{value:.2f}**" if value == best and len(values) > 1 else f"{value:.2f}" for value in values]
    return cells
