"""The paper's tables with the figures of this repository's bundles. Imports evaluation and errors."""

from training.paper.compare import ComparisonTable, as_markdown, as_text, compare
from training.paper.figures import Experiment, Figures, Pair, PaperFigures, PaperTable, paper_tables
from training.paper.reports import BundleReport, latest_reports

__all__ = [
    "BundleReport",
    "ComparisonTable",
    "Experiment",
    "Figures",
    "Pair",
    "PaperFigures",
    "PaperTable",
    "as_markdown",
    "as_text",
    "compare",
    "latest_reports",
    "paper_tables",
]
