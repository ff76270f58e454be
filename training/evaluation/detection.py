"""Detection metrics of the paper (section 4.1): FPR at 95% TPR, AUROC and AUPR with outliers as the positive class.

Also the paper's mixture of test inputs, one out-of-distribution input per five in-distribution ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]

OUTLIERS_PER_INLIER = 0.2
"""The paper's mixture: one outlier per five in-distribution inputs."""


@dataclass(frozen=True)
class DetectionMetrics:
    """Metrics in 0..1: false positive rate at 95% true positive rate, areas under ROC and precision-recall curve."""

    fpr95: float
    auroc: float
    aupr: float


@dataclass(frozen=True)
class MetricSummary:
    """Mean and standard deviation of the metrics over draws."""

    mean: DetectionMetrics
    deviation: DetectionMetrics


@dataclass(frozen=True)
class Mixture:
    """Rows drawn from the in-distribution test set and from each out-of-distribution set."""

    in_dist: Rows
    ood: Mapping[str, Rows]


def detection_metrics(in_dist: Scores, ood: Scores) -> DetectionMetrics:
    """Metrics of separating anomaly scores `ood` `[M]` from `in_dist` `[N]`; larger is more anomalous.

    The false positive rate is that at the threshold whose true positive rate is nearest to 95%, as in the authors' code
    (`fpr_and_fdr_at_recall`). Of two equally near rates the higher one counts, and of its thresholds the highest.
    """
    truth = np.concatenate((np.zeros(len(in_dist), dtype=np.int64), np.ones(len(ood), dtype=np.int64)))
    scores = np.concatenate((in_dist, ood))
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    # Rounded, so that two equally near rates are equal in floating point too.
    nearest = np.lexsort((fpr, -tpr, np.round(np.abs(tpr - 0.95), 12)))[0]
    return DetectionMetrics(
        fpr95=float(fpr[nearest]),
        auroc=float(roc_auc_score(truth, scores)),
        aupr=float(average_precision_score(truth, scores)),
    )


def resampled_metrics(in_dist: Scores, ood: Scores, *, draws: int = 10, seed: int = 0) -> MetricSummary:
    """Mean and deviation of the metrics over random draws of the paper's mixture.

    Each draw is without replacement. If there are too few outliers for one per five in-distribution inputs, every draw
    uses all of them and fewer in-distribution inputs.

    Raises:
        ValueError: The scores are too few for a single outlier per five in-distribution inputs.
    """
    generator = np.random.default_rng(seed)
    n_ood = min(int(len(in_dist) * OUTLIERS_PER_INLIER), len(ood))
    n_in_dist = min(round(n_ood / OUTLIERS_PER_INLIER), len(in_dist))
    if n_ood == 0:
        raise ValueError(f"{len(in_dist)} in-distribution and {len(ood)} outlier scores make no 5:1 mixture")
    metrics = [
        detection_metrics(
            generator.choice(in_dist, n_in_dist, replace=False), generator.choice(ood, n_ood, replace=False)
        )
        for _ in range(draws)
    ]
    table = np.array([(draw.fpr95, draw.auroc, draw.aupr) for draw in metrics])
    return MetricSummary(DetectionMetrics(*table.mean(axis=0).tolist()), DetectionMetrics(*table.std(axis=0).tolist()))


def draw_mixture(in_dist: int, ood: Mapping[str, int], *, seed: int) -> Mixture:
    """Draw the paper's mixture from all out-of-distribution sets together, without replacement.

    The sets contribute equal shares; a set that is too small contributes all its inputs, and the other sets more. The
    number of in-distribution inputs is five times that of outliers, which is all of them, up to a remainder, unless the
    sets are too small.

    Args:
        in_dist: The size of the in-distribution test set.
        ood: The size of each out-of-distribution set.
        seed: The seed of the draw.

    Raises:
        ValueError: The sizes allow no outlier per five in-distribution inputs.
    """
    n_ood = min(int(in_dist * OUTLIERS_PER_INLIER), sum(ood.values()))
    if n_ood == 0:
        raise ValueError(f"{in_dist} in-distribution and {sum(ood.values())} outlier inputs make no 5:1 mixture")
    generator = np.random.default_rng(seed)
    shares = _equal_shares(n_ood, ood)
    n_in_dist = round(n_ood / OUTLIERS_PER_INLIER)
    return Mixture(
        in_dist=np.sort(generator.choice(in_dist, n_in_dist, replace=False)),
        ood={name: np.sort(generator.choice(n, shares[name], replace=False)) for name, n in ood.items()},
    )


def _equal_shares(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Shares of `total`, as equal as the `sizes` allow."""
    shares: dict[str, int] = {}
    for i, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[name] = min(size, (total - sum(shares.values())) // (len(sizes) - i))
    return shares
