"""The command `inspect`: tables of a bundle's manifest and evaluation results for the terminal."""

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bundle import false_flag_rate, load_bundle
from training.console import visible


def facts(path: Path) -> Table:
    """The main facts of the manifest of the bundle at `path`; BundleError if a file does not match the manifest."""
    manifest = load_bundle(path).manifest
    table = Table(title=f"{manifest.name} version {manifest.version}", show_header=False)
    calibration = manifest.calibration
    rows: list[tuple[str, Any]] = [
        ("description", manifest.description),
        ("task", f"{manifest.task} of {manifest.modality}s"),
        ("scores", ", ".join(score.name for score in manifest.scores) + f" (default {manifest.default_score})"),
        ("calibration", f"{calibration.n} from {calibration.source}, default alpha {calibration.alpha}"),
        ("guarantee", false_flag_rate(calibration.n, calibration.alpha)),
    ]
    if manifest.default_score_reason is not None:
        rows.insert(3, ("default score", f"{manifest.default_score}: {manifest.default_score_reason}"))
    if manifest.precision != "fp32":
        rows.append(("precision", manifest.precision))
    if manifest.labels:
        rows.insert(2, ("labels", ", ".join(manifest.labels)))
    if manifest.training is not None:
        training = manifest.training
        duration = f"{training.seconds / 60:.0f} min on {training.hardware}"
        rows.append(("trained", f"{training.objective}, {duration}, recipe {training.recipe}"))
    if manifest.evaluation is not None and manifest.evaluation.error_percent is not None:
        rows.append(("error", f"{manifest.evaluation.error_percent}%"))
    for name, value in rows:
        table.add_row(name, escape(visible(str(value))))
    return table


def results(path: Path) -> Table | None:
    """The detection results by the default score; None if the bundle was not evaluated."""
    manifest = load_bundle(path, verify=False).manifest
    if manifest.evaluation is None:
        return None
    table = Table("set", "stage", "score", "FPR95", "AUROC", "AUPR", title="evaluation, percent")
    for row in manifest.evaluation.sets:
        if row.score == manifest.default_score:
            names = (escape(visible(name)) for name in (row.name, row.stage, row.score))
            table.add_row(*names, *(f"{value:.2f}" for value in (row.fpr95, row.auroc, row.aupr)))
    return table
