"""Evaluation of detection and probabilities as in the paper, with tables and plots. Imports the bundle only."""

from training.evaluation.assessment import assess
from training.evaluation.comparison import AurocChange, PrecisionComparison
from training.evaluation.default_score import DefaultScore, choose_default_score
from training.evaluation.detection import (
    RECALL,
    TEXT_RECALL,
    DetectionMetrics,
    MetricSummary,
    authors_fpr_at_recall,
    detection_metrics,
    fpr_at_recall,
    resampled_metrics,
)
from training.evaluation.plots import plot_histograms, plot_reliability, plot_rocs
from training.evaluation.probabilities import (
    confidences,
    mad_calibration_error,
    posterior_rescaling,
    rms_calibration_error,
    soft_f1,
)
from training.evaluation.report import RemovedInputs, Report, SetResult, manifest_evaluation
from training.evaluation.report_files import write_report
from training.evaluation.shortcuts import FeatureSeparation, ShortcutCheck
from training.evaluation.stage_evaluation import EvaluationInputs, SegmentScores, StageScores, evaluate_stages
from training.evaluation.stage_probabilities import ProbabilityResult, StageLogits, measure_probabilities
from training.evaluation.tables import markdown, markdown_table
from training.evaluation.temperature import tune_temperature
from training.evaluation.usability import PARTLY_USEFUL, USEFUL, Usability

__all__ = [
    "PARTLY_USEFUL",
    "RECALL",
    "TEXT_RECALL",
    "USEFUL",
    "AurocChange",
    "DefaultScore",
    "DetectionMetrics",
    "EvaluationInputs",
    "FeatureSeparation",
    "MetricSummary",
    "PrecisionComparison",
    "ProbabilityResult",
    "RemovedInputs",
    "Report",
    "SegmentScores",
    "SetResult",
    "ShortcutCheck",
    "StageLogits",
    "StageScores",
    "Usability",
    "assess",
    "authors_fpr_at_recall",
    "choose_default_score",
    "confidences",
    "detection_metrics",
    "evaluate_stages",
    "fpr_at_recall",
    "mad_calibration_error",
    "manifest_evaluation",
    "markdown",
    "markdown_table",
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
