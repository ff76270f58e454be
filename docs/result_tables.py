"""Tables of README.md and docs/results.md with figures from the reports of the bundles in models/."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean

from seed_figures import SeedFigures

from training.evaluation import Report, SetResult
from training.evaluation.report import FAR_MEAN, MEAN, NEAR_MEAN
from training.paper import BundleReport, latest_reports

MODELS = Path(__file__).parents[1] / "models"
BACKBONE_REPORT = Path(__file__).parents[1] / "benchmarks/results/flowers-efficientnet-report.json"
"""The report of `training/recipes/flowers-efficientnet.yaml`, whose bundle is too large for models/."""
WRAPPED_REPORT = Path(__file__).parents[1] / "benchmarks/results/wrapped-flowers-report.json"
"""The report of a wrapped classifier of flowers; docs/results.md has its commands."""
CONTROL_REPORT = Path(__file__).parents[1] / "benchmarks/results/cifar10-oe-control-report.json"
"""The report of the stages `baseline` and `control` of `training/recipes/cifar10-oe.yaml`, trained after its bundle."""
TEXT_BACKBONE_REPORT = Path(__file__).parents[1] / "benchmarks/results/newsgroups-minilm-report.json"
"""The report of `training/recipes/newsgroups-minilm.yaml`, whose bundle is too large for models/."""
FEATURE_SCORES = Path(__file__).parents[1] / "benchmarks/results/feature-scores.json"
OUTLIER_POOL_REPORT = Path(__file__).parents[1] / "benchmarks/results/cifar10-outlier-pool-report.json"
"""The report of `training/recipes/cifar10-outlier-pool.yaml`, with a further stage that was tried and not kept."""
MIDDLE_STAGES = {"control", "joint_confidence"}
"""The stages that a table shows between the first and the exported one. `control` trains as long as the exported stage,
without outliers; `joint_confidence` trains beside a GAN.
"""

TEXT_CLASSIFIERS = {"trec-gru": "TREC", "sst-gru": "SST", "newsgroups-gru": "20 Newsgroups"}
LANGUAGE_MODELS = {"ptb-word-qrnn": "words", "ptb-char-qrnn": "characters"}
OTHER_MODELS = {
    "cifar10-confidence": "confidence branch, its Outlier Exposure",
    "cifar10-energy": "energy bounds",
    "cifar10-mixoe": "MixOE",
    "cifar10-noise-outliers": "its own images under noise as outliers",
    "cifar10-gan": "GAN beside the classifier, then Outlier Exposure",
    "cifar10-pixelcnn": "margin between likelihoods",
}

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def overview() -> Table:
    """The results in the README: the mean over the test sets of an image and of a text classifier."""
    return ("what", "without outliers", "with Outlier Exposure", "source"), [
        _overview_row("cifar10-oe", "CIFAR-10 classifier, AUROC", lambda result: result.auroc.mean, _control()),
        _overview_row("trec-gru", "TREC text classifier, FPR at 95% TPR", lambda result: result.fpr95.mean),
    ]


def image_classifier() -> Table:
    """Every test set of `cifar10-oe` by its default score."""
    bundle, control = _bundle("cifar10-oe"), _control()
    report, score = bundle.report, bundle.report.default_score
    first, *_, last = bundle.stages
    compared = ((report, first), (control, "control"), (report, last))
    head = ["set", "FPR95", "AUROC", "AUPR", "flagged at alpha 0.01"]
    rows = []
    for name in [*report.test_sets, MEAN]:
        results = [source.find(name, stage, score) for source, stage in compared]
        rows.append([name, *_detection(results), f"{results[-1].flagged:.1f}"])
    errors = _arrow([source.error[stage] for source, stage in compared], digits=2)
    rows += [
        ["classification error of CIFAR-10 test images", errors, "", "", ""],
        ["CIFAR-10 test images flagged", "", "", "", f"{_false_flags(report, bundle.stages[-1], score):.2f}"],
    ]
    return head, rows


def text_classifiers() -> Table:
    """The means over the test sets of each text classifier, by maximum softmax probability and by its default score."""
    head = ["data", "stages", "error", "score", "FPR90", "FPR95", "AUROC", "AUPR", "false flags at 0.01"]
    rows = []
    for name, data in TEXT_CLASSIFIERS.items():
        bundle = _bundle(name)
        for score in dict.fromkeys(("msp", bundle.report.default_score)):
            error = _arrow([bundle.report.error[stage] for stage in _compared(bundle)])
            first = [data, _stages(bundle), error] if score == "msp" else ["", "", ""]
            rows.append([*first, f"`{score}`", *_means(bundle, bundle.report, score, recall=0.9)])
    return head, rows


def language_models() -> Table:
    """The means over the genres of the English Web Treebank of each language model, by sentence and by segment."""
    head = ["model of", "texts", "stages", "score", "FPR90", "FPR95", "AUROC", "AUPR", "false flags at 0.01"]
    rows = []
    for name, symbols in LANGUAGE_MODELS.items():
        bundle = _bundle(name)
        units = {"sentences": bundle.report}
        segments, by_segment = bundle.report.segments, bundle.report.by_segment
        if segments is not None and by_segment is not None:
            units[f"segments of {segments.symbols} {symbols}"] = by_segment
        for unit, report in units.items():
            for score in dict.fromkeys(row.score for row in report.results):
                default = " (default)" if score == bundle.report.default_score else ""
                rows.append(
                    [symbols, unit, _stages(bundle), f"`{score}`{default}", *_means(bundle, report, score, recall=0.9)]
                )
    return head, rows


def other_models() -> Table:
    """The means over the test sets of the remaining models, by their default score."""
    head = ["model", "trained with", "stages", "score", "FPR95", "AUROC", "AUPR", "false flags at 0.01"]
    rows = []
    for name, method in OTHER_MODELS.items():
        bundle = _bundle(name)
        score = bundle.report.default_score
        rows.append([f"`{name}`", method, _stages(bundle), f"`{score}`", *_means(bundle, bundle.report, score)])
    return head, rows


def density_bits() -> Table:
    """The mean bits per colour channel that each stage of `cifar10-pixelcnn` assigns to each set, and the AUROC."""
    bundle = _bundle("cifar10-pixelcnn")
    report, stages = bundle.report, _compared(bundle)
    head = ["set", *(f"bits, {stage}" for stage in stages), "AUROC"]
    rows = []
    for name in dict.fromkeys(row.set for row in report.bits):
        bits = {row.stage: row.bits for row in report.bits if row.set == name}
        in_sets = name in report.sets
        auroc = _arrow([report.find(name, stage, "bpp").auroc.mean for stage in stages]) if in_sets else ""
        rows.append([name, *(f"{bits[stage]:.2f}" for stage in stages), auroc])
    return head, rows


def backbone() -> Table:
    """Every test set of `flowers-efficientnet`: AUROC by three scores, and the share flagged by the default score."""
    return _photographs(BACKBONE_REPORT, ("msp", "mahalanobis", "knn"))


def wrapped() -> Table:
    """Every test set of the wrapped classifier of flowers, likewise."""
    return _photographs(WRAPPED_REPORT, ("msp", "knn", "mahalanobis"))


def _photographs(path: Path, scores: Sequence[str]) -> Table:
    """AUROC by `scores`, of which the last is the default score, and the share that it flags, of every test set."""
    report = Report.from_json(path.read_text(encoding="utf-8"))
    stage = report.stages[-1]
    assert report.default_score == scores[-1], f"{path.name} has another default score"
    head = ["set", *(f"AUROC `{score}`" for score in scores), f"flagged at alpha {report.alpha:g}"]
    rows = []
    for name in report.test_sets:
        results = [report.find(name, stage, score) for score in scores]
        rows.append([name, *(f"{result.auroc.mean:.1f}" for result in results), f"{results[-1].flagged:.1f}"])
    false_flags = _false_flags(report, stage, report.default_score)
    blank = [""] * len(scores)
    rows.append(["test photographs of flowers flagged", *blank, f"{false_flags:.1f}"])
    rows.append(["classification error of these photographs", f"{report.error[stage]:.1f}", *blank])
    return head, rows


def text_backbone() -> Table:
    """Every test set of `newsgroups-minilm` beside `newsgroups-gru`, both by their default scores."""
    reports = {
        "GRU": _bundle("newsgroups-gru").report,
        "MiniLM": Report.from_json(TEXT_BACKBONE_REPORT.read_text(encoding="utf-8")),
    }
    head = ["set", *(f"{metric} {name}" for metric in ("FPR95", "AUROC", "AUPR") for name in reports)]
    rows = []
    for name in [*reports["MiniLM"].test_sets, MEAN]:
        results = [report.find(name, report.stages[-1], report.default_score) for report in reports.values()]
        figures = [[result.fpr95.mean, result.auroc.mean, result.aupr.mean] for result in results]
        rows.append([name, *(f"{value:.1f}" for pair in zip(*figures, strict=True) for value in pair)])
    errors = [f"{report.error[report.stages[-1]]:.1f}" for report in reports.values()]
    rows.append(["classification error", *errors, "", "", "", ""])
    flags = [f"{_false_flags(report, report.stages[-1], report.default_score):.2f}" for report in reports.values()]
    rows.append(["false flags at alpha 0.01", *flags, "", "", "", ""])
    return head, rows


def seeds() -> Table:
    """Means and standard deviations over trainings of text classifiers with different seeds."""
    stages = ("baseline", "control", "oe")
    rows = []
    for recipe in ("trec-gru", "sst-gru"):
        figures = SeedFigures.load(recipe)
        rows.append([TEXT_CLASSIFIERS[recipe], "error", "", *(figures.error(stage) for stage in stages)])
        for score in dict.fromkeys(("msp", bundle_report(recipe).default_score)):
            for metric in ("fpr90", "fpr95", "auroc", "aupr"):
                cells = (figures.detection(metric, stage, score, [MEAN]) for stage in stages)
                rows.append(["", metric.upper(), f"`{score}`", *cells])
    return ("data", "figure", "score", *stages), rows


def outlier_pool() -> Table:
    """Outlier Exposure from all outliers, from the most confident ones, and from outliers moved towards confidence."""
    report = Report.from_json(OUTLIER_POOL_REPORT.read_text(encoding="utf-8"))
    stages = {"oe": "all", "oe_confident": "most confident quarter", "oe_extrapolated": "half of them moved (DivOE)"}
    groups = {"six validation sets": report.validation, "near classes": (NEAR_MEAN,), "far sets": (FAR_MEAN,)}
    rows = [
        [name, f"`{score}`", *(f"{mean_auroc(report, stage, score, sets):.1f}" for stage in stages)]
        for score in ("msp", "energy")
        for name, sets in groups.items()
    ]
    rows.append(["classification error", "", *(f"{report.error[stage]:.1f}" for stage in stages)])
    return ("AUROC, mean over", "score", *stages.values()), rows


def mean_auroc(report: Report, stage: str, score: str, sets: Sequence[str]) -> float:
    """The mean AUROC of a stage by a score over sets of a report."""
    return fmean(report.find(name, stage, score).auroc.mean for name in sets)


def feature_scores() -> Table:
    """AUROC of scores of EfficientNet-Lite0's features and of a classifier of them, on validation and test kinds."""
    figures = json.loads(FEATURE_SCORES.read_text(encoding="utf-8"))["figures"]
    rows = [
        [f"`{score}`", f"{row['auroc_validation_percent']:.1f}", f"{row['auroc_test_percent']:.1f}"]
        for score, row in figures.items()
    ]
    return ("score", "AUROC, 40 validation kinds", "AUROC, `unseen-kinds`"), rows


RESULT_SECTIONS: Mapping[str, Callable[[], Table]] = {
    "image-classifier": image_classifier,
    "text-classifiers": text_classifiers,
    "language-models": language_models,
    "other-models": other_models,
    "density-bits": density_bits,
    "backbone": backbone,
    "wrapped": wrapped,
    "text-backbone": text_backbone,
    "feature-scores": feature_scores,
    "seeds": seeds,
    "outlier-pool": outlier_pool,
}


@cache
def _reports() -> Mapping[str, BundleReport]:
    return latest_reports(MODELS)


def bundle_report(recipe: str) -> Report:
    """The report of the newest bundle of `recipe`."""
    return _bundle(recipe).report


def _bundle(recipe: str) -> BundleReport:
    return _reports()[recipe]


def _compared(bundle: BundleReport) -> list[str]:
    """The stages that a table shows, in their order."""
    first, *middle, last = bundle.stages
    return [first, *(stage for stage in middle if stage in MIDDLE_STAGES), last]


def _control() -> Report:
    """The report with the stage `control` of `cifar10-oe`, which the bundle's report lacks."""
    return Report.from_json(CONTROL_REPORT.read_text(encoding="utf-8"))


def _overview_row(
    recipe: str, what: str, metric: Callable[[SetResult], float], control: Report | None = None
) -> list[str]:
    bundle = _bundle(recipe)
    report = bundle.report
    sources = ((control or report, "control"), (report, bundle.stages[-1]))
    means = [metric(source.find(MEAN, stage, report.default_score)) for source, stage in sources]
    what += f", mean over {len(report.test_sets)} OOD sets"
    link = f"[report](models/{bundle.name}/{bundle.version}/report/report.md)"
    return [what, *(f"{figure:.1f}" for figure in means), link]


def _means(bundle: BundleReport, report: Report, score: str, recall: float | None = None) -> list[str]:
    results = [report.find(MEAN, stage, score) for stage in _compared(bundle)]
    rates = [] if recall is None else [_rates(results, recall)]
    return [*rates, *_detection(results), f"{_false_flags(report, bundle.stages[-1], score):.2f}"]


def _false_flags(report: Report, stage: str, score: str) -> float:
    """The percentage of the in-distribution test set that a stage flags by a score."""
    return next(row.flagged for row in report.false_flags if (row.stage, row.score) == (stage, score))


def _rates(results: Sequence[SetResult], recall: float) -> str:
    """The false positive rates at `recall`, by the tie rule of the authors' code, which the paper's tables use."""
    rates = [result.rates_at(recall) for result in results]
    return "" if None in rates else _arrow([rate.authors.mean for rate in rates if rate is not None])


def _detection(results: Sequence[SetResult]) -> list[str]:
    columns = [[getattr(result, metric).mean for result in results] for metric in ("fpr95", "auroc", "aupr")]
    return [_arrow(column) for column in columns]


def _stages(bundle: BundleReport) -> str:
    return " → ".join(_compared(bundle))


def _arrow(values: Sequence[float], digits: int = 1) -> str:
    *before, last = (f"{value:.{digits}f}" for value in values)
    return " → ".join([*before, f"**{last}**"])
