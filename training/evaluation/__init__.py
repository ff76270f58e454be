"""Evaluation: how well scores tell out-of-distribution inputs apart, measured as the paper does, tabulated, plotted."""

from training.evaluation.detection import DetectionMetrics, MetricSummary, detection_metrics, resampled_metrics
from training.evaluation.plots import plot_histograms, plot_rocs
from training.evaluation.report import Report, SetResult, StageScores, evaluate, manifest_evaluation
from training.evaluation.tables import markdown

__all__ = [
    "DetectionMetrics",
    "MetricSummary",
    "Report",
    "SetResult",
    "StageScores",
    "detection_metrics",
    "evaluate",
    "manifest_evaluation",
    "markdown",
    "plot_histograms",
    "plot_rocs",
    "resampled_metrics",
]
