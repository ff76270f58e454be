"""The files of a report: its figures as JSON, its page as Markdown and its plots."""

from pathlib import Path

from training.evaluation.plots import plot_histograms, plot_reliability, plot_rocs
from training.evaluation.report import Report
from training.evaluation.stage_evaluation import EvaluationInputs
from training.evaluation.tables import markdown


def write_report(report: Report, inputs: EvaluationInputs, folder: Path) -> None:
    """Write `report.json`, `report.md` and the plots into `folder`.

    Args:
        report: The figures measured on `inputs`.
        inputs: The scores behind the plots, and the title.
        folder: Created if it does not exist.
    """
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(markdown(report, inputs.title), encoding="utf-8")
    plot_histograms(inputs.stages, inputs.default_score, folder / "histograms.png")
    plot_rocs(inputs.stages, inputs.default_score, folder / "roc.png")
    plot_reliability(inputs.stages, report.test_sets, inputs.seed, folder / "reliability.png")
