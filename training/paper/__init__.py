"""The paper's tables, with the figures of this repository's own bundles beside the paper's."""

from training.paper.figures import Experiment, Figures, PaperFigures, PaperTable, paper_tables
from training.paper.measured import Measured, measured_runs
from training.paper.rows import Comparison, compare
from training.paper.shown import as_markdown, as_text

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
