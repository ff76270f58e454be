"""Detection metrics of the paper (section 4.1): FPR at 95% TPR, AUROC, AUPR; outliers positive, averaged over draws."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Scores = NDArray[np.float64]
OUTLIERS_PER_INLIER = 0.2
"""The paper's mixture: one outlier per five in-distribution inputs."""


@dataclass(frozen=True)
class DetectionMetrics:
    """Shares in 0..1: false positive rate at 95% true positive rate, area under the ROC and precision-recall curves."""

    fpr95: float
    auroc: float
    aupr: float


@dataclass(frozen=True)
class MetricSummary:
    """Mean and standard deviation of the metrics over draws."""

    mean: DetectionMetrics
    deviation: DetectionMetrics


def detection_metrics(inside: Scores, outside: Scores) -> DetectionMetrics:
    """Metrics of telling anomaly scores `outside` `[M]` from `inside` `[N]`; larger is more anomalous.

    The false positive rate is taken where the true positive rate is nearest to 95%, as the authors' code does
    (`fpr_and_fdr_at_recall`): the higher one where two are as near, and its highest threshold.
    """
    truth = np.concatenate((np.zeros(len(inside), dtype=np.int64), np.ones(len(outside), dtype=np.int64)))
    scores = np.concatenate((inside, outside))
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    # Rounded, so that two equally near rates tie in floating point too.
    nearest = np.lexsort((fpr, -tpr, np.round(np.abs(tpr - 0.95), 12)))[0]
    return DetectionMetrics(
        fpr95=float(fpr[nearest]),
        auroc=float(roc_auc_score(truth, scores)),
        aupr=float(average_precision_score(truth, scores)),
    )


def resampled_metrics(inside: Scores, outside: Scores, *, draws: int = 10, seed: int = 0) -> MetricSummary:
    """Mean and deviation over random draws of the paper's mixture, without replacement within a draw.

    A set with too few outliers for one per five in-distribution inputs is used whole, against fewer of those.
    """
    generator = np.random.default_rng(seed)
    take_out = min(int(len(inside) * OUTLIERS_PER_INLIER), len(outside))
    take_in = min(round(take_out / OUTLIERS_PER_INLIER), len(inside))
    if take_out == 0:
        raise ValueError(f"{len(inside)} in-distribution and {len(outside)} outlier scores make no 5:1 mixture")
    found = [
        detection_metrics(
            generator.choice(inside, take_in, replace=False), generator.choice(outside, take_out, replace=False)
        )
        for _ in range(draws)
    ]
    table = np.array([(metrics.fpr95, metrics.auroc, metrics.aupr) for metrics in found])
    return MetricSummary(DetectionMetrics(*table.mean(axis=0).tolist()), DetectionMetrics(*table.std(axis=0).tolist()))
