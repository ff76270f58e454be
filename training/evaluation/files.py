"""The report's files: its figures as JSON, its page as Markdown, its plots."""

from collections.abc import Mapping
from pathlib import Path

from training.evaluation.plots import plot_histograms, plot_reliability, plot_rocs
from training.evaluation.report import Report, StageScores
from training.evaluation.tables import markdown


def write_report(
    report: Report, stages: Mapping[str, StageScores], folder: Path, *, title: str, seed: int, score: str
) -> None:
    """Write `report.json`, `report.md` and the plots (by `score`) into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(report, title), encoding="utf-8")
    plot_histograms(stages, score, folder / "histograms.png")
    plot_rocs(stages, score, folder / "roc.png")
    plot_reliability(stages, report.test_sets, seed, folder / "reliability.png")
