"""Table and plot of the comparison of several servers of one model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

ServerFigures = Mapping[int, Mapping[str, Any]]
"""By concurrency: `requests_per_second`, `share_of_upper_limit`, `p50_seconds`, `p99_seconds` and `errors`.

All but `errors` are None if every round had errors.
"""

# Marks within each power of ten: the figures of a panel can all lie between two powers.
_TICKS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The medians of one model's measurements.

    Attributes:
        model: The model's name.
        upper_limit: Figures of ONNX Runtime alone, with `inputs_per_second`.
        servers: Figures of each server by its name.
        excluded: The reason for each server that was not measured.
    """

    model: str
    upper_limit: Mapping[str, Any]
    servers: Mapping[str, ServerFigures]
    excluded: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The fields for the result file."""
        return asdict(self)


def table(comparison: Comparison) -> Table:
    """A row for each server; each cell holds throughput, share of the upper limit, and latencies."""
    concurrencies = _concurrencies(comparison)
    title = f"{comparison.model}: ONNX Runtime alone {comparison.upper_limit['inputs_per_second']:,.0f} inputs/s"
    caption = "\n".join(f"excluded: {name}: {reason}" for name, reason in comparison.excluded.items())
    rendered = Table("", title=title, caption=caption or None, show_lines=True)
    for concurrency in concurrencies:
        rendered.add_column(f"concurrency {concurrency}\nrequests/s (share)\np50 / p99 ms", justify="right")
    for name, figures in comparison.servers.items():
        rendered.add_row(name, *(_cell(figures[concurrency]) for concurrency in concurrencies))
    return rendered


def _concurrencies(comparison: Comparison) -> list[int]:
    return sorted({concurrency for figures in comparison.servers.values() for concurrency in figures})


def _cell(figures: Mapping[str, Any]) -> str:
    errors = f"\n{figures['errors']} errors" if figures["errors"] else ""
    if figures["requests_per_second"] is None:
        return f"not valid{errors}"
    throughput = f"{figures['requests_per_second']:,.0f} ({figures['share_of_upper_limit']:.1%})"
    return f"{throughput}\n{1e3 * figures['p50_seconds']:.1f} / {1e3 * figures['p99_seconds']:.1f}{errors}"


def plot(comparison: Comparison, file: Path) -> None:
    """Write a PNG with throughput, share of the upper limit, p50 and p99 over concurrency, a line per server."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    throughput, p50, p99 = figure.subplots(1, 3)
    limit = comparison.upper_limit["inputs_per_second"]
    for panel, key, label, scale in (
        (throughput, "requests_per_second", "requests/s", 1.0),
        (p50, "p50_seconds", "p50, ms", 1e3),
        (p99, "p99_seconds", "p99, ms", 1e3),
    ):
        for name, figures in comparison.servers.items():
            points = {number: row[key] for number, row in sorted(figures.items()) if row[key] is not None}
            style = {"linewidth": 2.5, "color": "black"} if name.startswith("this service") else {}
            if name.endswith("workers"):
                style["linestyle"] = ":"
            panel.plot(list(points), [scale * value for value in points.values()], marker="o", label=name, **style)
        _set_axes(panel, _concurrencies(comparison), label)
    throughput.axhline(limit, linestyle="--", color="grey", label="ONNX Runtime alone")
    share = throughput.secondary_yaxis("right", functions=(lambda y: y / limit, lambda y: y * limit))
    share.yaxis.set_major_locator(LogLocator(subs=_TICKS))
    share.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    share.yaxis.set_minor_formatter(NullFormatter())
    share.set_ylabel("share of the upper limit")
    handles, labels = throughput.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(comparison.model)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=120)


def _set_axes(panel: Axes, concurrencies: list[int], label: str) -> None:
    # Logarithmic: on a linear axis the servers of a small model, far below the limit, could not be distinguished.
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=_TICKS))
    panel.yaxis.set_major_formatter("{x:,g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_xscale("log", base=2)
    panel.set_xticks(concurrencies, [str(number) for number in concurrencies])
    panel.set_xlabel("concurrency")
    panel.set_ylabel(label)
    panel.grid(alpha=0.3)
