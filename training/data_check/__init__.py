"""Data check: faults of data sets that can be found before training. May import `training.scoring` and below."""

from training.data_check.broken import blank_images_findings
from training.data_check.check import CheckedData, CheckOptions, check_data
from training.data_check.checked_set import CheckedSet, Columns
from training.data_check.class_sizes import calibration_size_findings
from training.data_check.duplicates import conflicting_labels_finding
from training.data_check.finding import Example, Finding, Place
from training.data_check.page import page
from training.data_check.report import DataCheck, SetSummary

__all__ = [
    "CheckOptions",
    "CheckedData",
    "CheckedSet",
    "Columns",
    "DataCheck",
    "Example",
    "Finding",
    "Place",
    "SetSummary",
    "blank_images_findings",
    "calibration_size_findings",
    "check_data",
    "conflicting_labels_finding",
    "page",
]
