"""Detection metrics of the paper (section 4.1): FPR at a recall, AUROC and AUPR with outliers as the positive class.

Also the paper's mixture of test inputs, one out-of-distribution input per five in-distribution ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]

OUTLIERS_PER_INLIER = 0.2
"""The paper's mixture: one outlier per five in-distribution inputs."""

RECALL = 0.95
"""The recall (true positive rate) at which the paper's tables of images give the false positive rate."""

TEXT_RECALL = 0.9
"""The recall of the paper's tables of texts and language models (`recall_level` in the authors' code)."""


@dataclass(frozen=True)
class DetectionMetrics:
    """Metrics in 0..1.

    Attributes:
        auroc: The area under the ROC curve.
        aupr: The area under the precision-recall curve.
        fpr: Recall -> false positive rate, by `fpr_at_recall`.
        authors_fpr: Recall -> false positive rate, by `authors_fpr_at_recall`.
    """

    auroc: float
    aupr: float
    fpr: Mapping[float, float]
    authors_fpr: Mapping[float, float]

    @property
    def fpr95(self) -> float:
        """The false positive rate at 95% recall; KeyError if it was not measured."""
        return self.fpr[RECALL]


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


def fpr_at_recall(in_dist: Scores, ood: Scores, recall: float = RECALL) -> float:
    """The false positive rate at the threshold whose recall is nearest to `recall`, in 0..1.

    Of the thresholds with that recall the highest counts, which has the smallest false positive rate. Of two equally
    near recalls the higher one counts. Reports show this rate; it is also the usual one in the literature (OpenOOD).

    Args:
        in_dist: Anomaly scores `[N]` of in-distribution inputs; larger is more anomalous.
        ood: Anomaly scores `[M]` of out-of-distribution inputs, the positive class.
        recall: The share of `ood` to detect, in 0..1.
    """
    fpr, tpr = _operating_points(in_dist, ood)
    # Rounded, so that two equally near recalls are equal in floating point too.
    nearest = np.lexsort((fpr, -tpr, np.round(np.abs(tpr - recall), 12)))[0]
    return float(fpr[nearest])


def authors_fpr_at_recall(in_dist: Scores, ood: Scores, recall: float = RECALL) -> float:
    """The false positive rate of the authors' code (`fpr_and_fdr_at_recall`), for comparisons with the paper's tables.

    It differs from `fpr_at_recall` in the choice among thresholds of equal recall: the lowest counts, which has the
    largest false positive rate. The exception is a recall of 1, for which the highest threshold counts.

    Args:
        in_dist: Anomaly scores `[N]` of in-distribution inputs; larger is more anomalous.
        ood: Anomaly scores `[M]` of out-of-distribution inputs, the positive class.
        recall: The share of `ood` to detect, in 0..1.
    """
    fpr, tpr = _operating_points(in_dist, ood)
    # From the highest threshold that detects all outliers upwards; without the first point, an infinite threshold.
    upwards = np.arange(int(np.argmax(tpr == 1)), 0, -1)
    return float(fpr[upwards[np.argmin(np.abs(tpr[upwards] - recall))]])


def detection_metrics(in_dist: Scores, ood: Scores, recalls: Iterable[float] = (RECALL,)) -> DetectionMetrics:
    """Metrics of separating anomaly scores `ood` `[M]` from `in_dist` `[N]`; larger is more anomalous.

    Args:
        in_dist: Anomaly scores of in-distribution inputs.
        ood: Anomaly scores of out-of-distribution inputs.
        recalls: The recalls, in 0..1, at which false positive rates are measured.
    """
    truth, scores = _truth_and_scores(in_dist, ood)
    recalls = tuple(recalls)
    return DetectionMetrics(
        auroc=float(roc_auc_score(truth, scores)),
        aupr=float(average_precision_score(truth, scores)),
        fpr={recall: fpr_at_recall(in_dist, ood, recall) for recall in recalls},
        authors_fpr={recall: authors_fpr_at_recall(in_dist, ood, recall) for recall in recalls},
    )


def resampled_metrics(
    in_dist: Scores, ood: Scores, *, recalls: Iterable[float] = (RECALL,), draws: int = 10, seed: int = 0
) -> MetricSummary:
    """Mean and deviation of the metrics over random draws of the paper's mixture.

    Each draw is without replacement. If there are too few outliers for one per five in-distribution inputs, every draw
    uses all of them and fewer in-distribution inputs.

    Raises:
        ValueError: The scores are too few for a single outlier per five in-distribution inputs.
    """
    generator = np.random.default_rng(seed)
    recalls = tuple(recalls)
    n_ood = min(int(len(in_dist) * OUTLIERS_PER_INLIER), len(ood))
    n_in_dist = min(round(n_ood / OUTLIERS_PER_INLIER), len(in_dist))
    if n_ood == 0:
        raise ValueError(f"{len(in_dist)} in-distribution and {len(ood)} outlier scores make no 5:1 mixture")
    metrics = [
        detection_metrics(
            generator.choice(in_dist, n_in_dist, replace=False), generator.choice(ood, n_ood, replace=False), recalls
        )
        for _ in range(draws)
    ]
    return MetricSummary(mean=_over_draws(metrics, np.mean), deviation=_over_draws(metrics, np.std))


def _over_draws(
    draws: Sequence[DetectionMetrics], summary: Callable[[Sequence[float]], np.floating]
) -> DetectionMetrics:
    """Each metric's `summary` over the draws."""

    def rates(metric: str) -> dict[float, float]:
        recalls = getattr(draws[0], metric)
        return {recall: float(summary([getattr(draw, metric)[recall] for draw in draws])) for recall in recalls}

    return DetectionMetrics(
        auroc=float(summary([draw.auroc for draw in draws])),
        aupr=float(summary([draw.aupr for draw in draws])),
        fpr=rates("fpr"),
        authors_fpr=rates("authors_fpr"),
    )


def _truth_and_scores(in_dist: Scores, ood: Scores) -> tuple[Rows, Scores]:
    """Labels `[N + M]`, 1 for out-of-distribution inputs, and the scores in the same order."""
    truth = np.concatenate((np.zeros(len(in_dist), dtype=np.int64), np.ones(len(ood), dtype=np.int64)))
    return truth, np.concatenate((in_dist, ood))


def _operating_points(in_dist: Scores, ood: Scores) -> tuple[Scores, Scores]:
    """False and true positive rates at every distinct threshold, from an infinite one downwards."""
    fpr, tpr, _ = roc_curve(*_truth_and_scores(in_dist, ood), drop_intermediate=False)
    return fpr, tpr


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
