"""Evaluation: how well scores tell out-of-distribution inputs apart, measured as the paper does, tabulated, plotted."""

from training.evaluation.comparison import AurocChange, Comparison
from training.evaluation.detection import DetectionMetrics, MetricSummary, detection_metrics, resampled_metrics
from training.evaluation.files import write_report
from training.evaluation.plots import plot_histograms, plot_reliability, plot_rocs
from training.evaluation.probabilities import (
    confidences,
    mad_calibration_error,
    posterior_rescaling,
    rms_calibration_error,
    soft_f1,
)
from training.evaluation.report import Report, SetResult, StageScores, evaluate, manifest_evaluation
from training.evaluation.stage_probabilities import ProbabilityResult, StageLogits, measure_probabilities
from training.evaluation.tables import markdown
from training.evaluation.temperature import tune_temperature

__all__ = [
    "AurocChange",
    "Comparison",
    "DetectionMetrics",
    "MetricSummary",
    "ProbabilityResult",
    "Report",
    "SetResult",
    "StageLogits",
    "StageScores",
    "confidences",
    "detection_metrics",
    "evaluate",
    "mad_calibration_error",
    "manifest_evaluation",
    "markdown",
    "measure_probabilities",
    "plot_histograms",
    "plot_reliability",
    "plot_rocs",
    "posterior_rescaling",
    "resampled_metrics",
    "rms_calibration_error",
    "soft_f1",
    "tune_temperature",
    "write_report",
]
