"""The paper's tables, with the figures of this repository's own bundles beside the paper's."""

from training.paper.compare import Comparison, compare
from training.paper.figures import Experiment, Figures, PaperFigures, PaperTable, paper_tables
from training.paper.render import as_markdown, as_text
from training.paper.reports import Measured, measured_runs

__all__ = [
    "Comparison",
    "Experiment",
    "Figures",
    "Measured",
    "PaperFigures",
    "PaperTable",
    "as_markdown",
    "as_text",
    "compare",
    "measured_runs",
    "paper_tables",
]
