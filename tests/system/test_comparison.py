"""The comparison of servers: medians over the rounds, table and plot."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from benchmarks.comparison import Comparison, plot, table
from benchmarks.side_by_side import medians


def figures(rate: float, errors: int = 0) -> dict[str, Any]:
    return {
        "requests_per_second": rate,
        "share_of_upper_limit": rate / 1000,
        "p50_seconds": 1 / rate,
        "p99_seconds": 2 / rate,
        "errors": errors,
    }


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        model="tiny",
        upper_limit={"inputs_per_second": 1000.0},
        servers={
            "this service": {1: medians([figures(100)]), 32: medians([figures(700)])},
            "other": {1: medians([figures(50)]), 32: medians([figures(640, errors=3)])},
        },
        excluded={"third": "not installed"},
    )


def test_a_figure_is_the_median_over_the_rounds() -> None:
    assert medians([figures(10), figures(30), figures(20)])["requests_per_second"] == 20


def test_rounds_with_errors_are_not_valid_but_their_errors_are_counted() -> None:
    result = medians([figures(10), figures(900, errors=2), figures(10), figures(900, errors=5)])
    assert (result["requests_per_second"], result["errors"]) == (10, 7)


def test_the_table_shows_shares_invalid_figures_and_excluded_servers(comparison: Comparison) -> None:
    console = Console(width=120, file=StringIO())
    console.print(table(comparison))
    text = console.file.getvalue()
    assert "700 (70.0%)" in text
    assert "not valid" in text
    assert "3 errors" in text
    assert "excluded: third: not installed" in text


def test_the_plot_is_a_png_even_if_figures_are_not_valid(comparison: Comparison, tmp_path: Path) -> None:
    plot(comparison, tmp_path / "tiny.png")
    with Image.open(tmp_path / "tiny.png") as picture:
        assert picture.format == "PNG"
