"""Comparisons shown: on a terminal, or as Markdown for a page."""

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from training.evaluation.markdown_table import markdown_table
from training.paper.compare import Comparison


def as_text(comparison: Comparison) -> Group:
    """For a Rich console."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=Text(comparison.title, style="bold"),
        title_justify="left",
    )
    for i, name in enumerate(comparison.head):
        words = i < comparison.text_columns
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    for row in comparison.rows:
        table.add_row(*(Text(cell) for cell in row))
    return Group(table, *(Text(note, style="dim") for note in comparison.notes), Text())


def as_markdown(comparison: Comparison) -> str:
    """A section with its table and notes."""
    table = markdown_table(comparison.head, comparison.rows, text_columns=comparison.text_columns)
    return "\n\n".join([f"### {comparison.title}", table, "\n".join(f"- {note}" for note in comparison.notes)]) + "\n"
