"""The side-by-side benchmark's figures: which count, and how they are shown."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from benchmarks.comparison import Comparison, plot, table
from benchmarks.side_by_side import middle


def measured(rate: float, errors: int = 0) -> dict[str, Any]:
    return {"requests_per_second": rate, "share": rate / 1000, "p50": 1 / rate, "p99": 2 / rate, "errors": errors}


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        model="tiny",
        ceiling={"inputs_per_second": 1000.0},
        servers={
            "this service": {1: middle([measured(100)]), 32: middle([measured(700)])},
            "other": {1: middle([measured(50)]), 32: middle([measured(640, errors=3)])},
        },
        left_out={"third": "not installed"},
    )


def test_the_middle_of_the_rounds_counts() -> None:
    assert middle([measured(10), measured(30), measured(20)])["requests_per_second"] == 20


def test_rounds_with_errors_do_not_count_but_their_errors_are_told() -> None:
    figures = middle([measured(10), measured(900, errors=2), measured(10), measured(900, errors=5)])
    assert (figures["requests_per_second"], figures["errors"]) == (10, 7)


def test_the_table_shows_shares_what_does_not_count_and_who_was_left_out(comparison: Comparison) -> None:
    console = Console(width=120, file=StringIO())
    console.print(table(comparison))
    shown = console.file.getvalue()
    assert "700 (70.0%)" in shown
    assert "does not count" in shown
    assert "3 errors" in shown
    assert "left out: third: not installed" in shown


def test_the_plot_is_a_picture_even_where_figures_do_not_count(comparison: Comparison, tmp_path: Path) -> None:
    plot(comparison, tmp_path / "tiny.png")
    with Image.open(tmp_path / "tiny.png") as picture:
        assert picture.format == "PNG"
