"""The table of docs/results.md that sets scores and objectives on CIFAR-10 beside the leaderboard of OpenOOD."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from result_tables import Table, bundle_report, mean_auroc
from seed_figures import SeedFigures

NEAR_FAR_RECIPE = "cifar10-near-far"
"""A recipe that makes no bundle in models/ and was trained with several seeds."""
NEAR = ("near",)
FAR = ("gtsrb", "omniglot")
"""The far sets of the table. OpenOOD has no sets of noise."""


@dataclass(frozen=True)
class Method:
    """A row: a stage and a score of a report, and the near and far AUROC that OpenOOD publishes for the method.

    Attributes:
        name: The name of the method.
        bundle: The name of the bundle whose report has the figures; None for the trainings of `cifar10-near-far`.
        stage: The stage.
        score: The score.
        published: OpenOOD's near and far AUROC; None if its leaderboard does not have the method on CIFAR-10.
    """

    name: str
    bundle: str | None
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
    trainings = SeedFigures.load(NEAR_FAR_RECIPE)
    rows = []
    for method in METHODS:
        near, far = (_auroc(trainings, method, sets) for sets in (NEAR, FAR))
        published = "" if method.published is None else " / ".join(f"{value:.1f}" for value in method.published)
        rows.append([method.name, f"`{method.stage}`", f"`{method.score}`", f"{near} / {far}", published])
    return ("method", "stage", "score", "near / far AUROC", "OpenOOD, near / far"), rows


def _auroc(trainings: SeedFigures, method: Method, sets: Sequence[str]) -> str:
    if method.bundle is None:
        return trainings.detection("auroc", method.stage, method.score, sets)
    return f"{mean_auroc(bundle_report(method.bundle), method.stage, method.score, sets):.1f}"


OPENOOD_SECTIONS: Mapping[str, Callable[[], Table]] = {"openood": openood}
