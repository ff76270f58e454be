"""The table of docs/results.md that sets scores and objectives on CIFAR-10 beside the leaderboard of OpenOOD."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from result_tables import Table, bundle_report, mean_auroc

from training.evaluation import Report

NEAR_FAR_REPORT = Path(__file__).parents[1] / "benchmarks/results/cifar10-near-far-report.json"
"""The report of `training/recipes/cifar10-near-far.yaml`, which makes no bundle in models/."""
NEAR = ("near",)
FAR = ("gtsrb", "omniglot")
"""The far sets of the table. OpenOOD has no sets of noise."""


@dataclass(frozen=True)
class Method:
    """A row: a stage and a score of a report, and the near and far AUROC that OpenOOD publishes for the method.

    Attributes:
        name: The name of the method.
        report: The name of the bundle with the report; None for that of `cifar10-near-far`.
        stage: The stage.
        score: The score.
        published: OpenOOD's near and far AUROC; None if its leaderboard does not have the method on CIFAR-10.
    """

    name: str
    report: str | None
    stage: str
    score: str
    published: tuple[float, float] | None


# OpenOOD v1.5, CIFAR-10, ResNet-18, leaderboard of 19 July 2025 (github.com/zjysteven/OpenOOD).
METHODS = (
    Method("MSP", None, "control", "msp", (88.03, 90.73)),
    Method("maximum logit", None, "control", "max_logit", (87.52, 91.10)),
    Method("energy", None, "control", "energy", (87.58, 91.21)),
    Method("GEN", None, "control", "gen", (88.20, 91.35)),
    Method("nearest neighbours", None, "control", "knn", (90.64, 92.96)),
    Method("Mahalanobis (OpenOOD: features not normalised)", None, "control", "mahalanobis", (84.20, 89.72)),
    Method("LogitNorm, MSP", None, "logit_norm", "msp", (92.33, 96.74)),
    Method("Outlier Exposure, MSP", None, "oe", "msp", (94.82, 96.00)),
    Method("Outlier Exposure, energy", None, "oe", "energy", None),
    Method("MixOE, MSP", "cifar10-mixoe", "oe", "msp", (88.73, 91.93)),
    Method("energy bounds, energy", "cifar10-energy", "oe", "energy", None),
    Method("confidence branch", "cifar10-confidence", "control", "confidence", (89.84, 92.85)),
    Method("Outlier Exposure of a confidence branch", "cifar10-confidence", "oe", "confidence", None),
    Method("GAN, then Outlier Exposure, MSP", "cifar10-gan", "joint_oe", "msp", None),
)


def openood() -> Table:
    """Near and far AUROC of each method here and in OpenOOD."""
    own = Report.from_json(NEAR_FAR_REPORT.read_text(encoding="utf-8"))
    rows = []
    for method in METHODS:
        report = own if method.report is None else bundle_report(method.report)
        near, far = (mean_auroc(report, method.stage, method.score, sets) for sets in (NEAR, FAR))
        published = "" if method.published is None else " / ".join(f"{value:.1f}" for value in method.published)
        rows.append([method.name, f"`{method.stage}`", f"`{method.score}`", f"{near:.1f} / {far:.1f}", published])
    return ("method", "stage", "score", "near / far AUROC", "OpenOOD, near / far"), rows


OPENOOD_SECTIONS: Mapping[str, Callable[[], Table]] = {"openood": openood}
