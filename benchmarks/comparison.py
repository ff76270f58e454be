"""One model's servers side by side: the figures as a table and as a plot."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

Figures = Mapping[int, Mapping[str, Any]]
"""By concurrency: `requests_per_second`, `share` of the ceiling, `p50` and `p99` in seconds (all four None where every
round had errors), and `errors`."""

_TICKS = (1, 2, 5)
"""What an axis marks within each power of ten: with powers alone, all that is shown may lie between two marks."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The medians of one model: `ceiling` of ONNX Runtime alone, and what each of `servers` did at each concurrency."""

    model: str
    ceiling: Mapping[str, Any]
    servers: Mapping[str, Figures]
    left_out: Mapping[str, str]

    def figures(self) -> dict[str, Any]:
        """As a result keeps them."""
        return asdict(self)


def table(comparison: Comparison) -> Table:
    """A row for each server; in each cell throughput and share of the ceiling, below them the latencies."""
    concurrencies = sorted({each for figures in comparison.servers.values() for each in figures})
    title = f"{comparison.model}: ONNX Runtime alone {comparison.ceiling['inputs_per_second']:,.0f} inputs/s"
    left_out = "\n".join(f"left out: {name}: {reason}" for name, reason in comparison.left_out.items())
    drawn = Table("", title=title, caption=left_out or None, show_lines=True)
    for each in concurrencies:
        drawn.add_column(f"concurrency {each}\nrequests/s (share)\np50 / p99 ms", justify="right")
    for name, figures in comparison.servers.items():
        drawn.add_row(name, *(_cell(figures[each]) for each in concurrencies))
    return drawn


def _cell(figures: Mapping[str, Any]) -> str:
    errors = f"\n{figures['errors']} errors" if figures["errors"] else ""
    if figures["requests_per_second"] is None:
        return f"does not count{errors}"
    speed = f"{figures['requests_per_second']:,.0f} ({figures['share']:.1%})"
    return f"{speed}\n{1e3 * figures['p50']:.1f} / {1e3 * figures['p99']:.1f}{errors}"


def plot(comparison: Comparison, file: Path) -> None:
    """Throughput with its share of the ceiling, p50 and p99 over concurrency, a line for each server, as PNG."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    throughput, p50, p99 = figure.subplots(1, 3)
    ceiling = comparison.ceiling["inputs_per_second"]
    for panel, key, label, scale in (
        (throughput, "requests_per_second", "requests/s", 1.0),
        (p50, "p50", "p50, ms", 1e3),
        (p99, "p99", "p99, ms", 1e3),
    ):
        for name, figures in comparison.servers.items():
            counted = {each: row[key] for each, row in sorted(figures.items()) if row[key] is not None}
            style = {"linewidth": 2.5, "color": "black"} if name.startswith("this service") else {}
            if name.endswith("workers"):
                style["linestyle"] = ":"
            panel.plot(list(counted), [scale * value for value in counted.values()], marker="o", label=name, **style)
        _axes(panel, sorted({each for figures in comparison.servers.values() for each in figures}), label)
    throughput.axhline(ceiling, linestyle="--", color="grey", label="ONNX Runtime alone")
    share = throughput.secondary_yaxis("right", functions=(lambda y: y / ceiling, lambda y: y * ceiling))
    share.yaxis.set_major_locator(LogLocator(subs=_TICKS))
    share.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    share.yaxis.set_minor_formatter(NullFormatter())
    share.set_ylabel("share of the ceiling")
    handles, labels = throughput.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(comparison.model)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=120)


def _axes(panel: Axes, concurrencies: list[int], label: str) -> None:
    # Logarithmic, or what is far from a small model's ceiling could not be told apart.
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=_TICKS))
    panel.yaxis.set_major_formatter("{x:,g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_xscale("log", base=2)
    panel.set_xticks(concurrencies, [str(each) for each in concurrencies])
    panel.set_xlabel("concurrency")
    panel.set_ylabel(label)
    panel.grid(alpha=0.3)
