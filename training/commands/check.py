"""The command `check`: looks for faults of data before anything is trained."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from training.console import announce, output, progress_bars, visible

_COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def check(
    data: Annotated[
        Path,
        typer.Argument(
            help="In-distribution data: a folder of images with one sub-folder per class, .parquet, .csv or .jsonl.",
            show_default=False,
        ),
    ],
    test: Annotated[Path | None, typer.Option("--test", help="In-distribution test set of its own.")] = None,
    outliers: Annotated[
        Path | None, typer.Option("--outliers", help="Inputs of none of the classes: a folder, table or .txt.")
    ] = None,
    output_folder: Annotated[
        Path | None,
        typer.Option("--output", help="Folder for check.html and check.json (default: runs/<name of DATA>-check)."),
    ] = None,
    backbone: Annotated[
        Path | None,
        typer.Option(
            "--backbone",
            help="Pretrained ONNX model of images normalised as ImageNet's, whose features the labels are judged by "
            "(default: pixels, which suffice for simple images only).",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 on warnings, too.")] = False,
    alpha: Annotated[
        float, typer.Option("--alpha", min=1e-6, max=0.999, help="False-flag rate that you want to calibrate for.")
    ] = 0.01,
    image_column: Annotated[str, typer.Option("--image-column", help="Column of images in a table.")] = "image",
    text_column: Annotated[str, typer.Option("--text-column", help="Column of texts in a table.")] = "text",
    label_column: Annotated[
        str | None, typer.Option("--label-column", help="Column of classes in a table (default: label, if it exists).")
    ] = None,
) -> None:
    """Check DATA before training; write a page, JSON and the exit code.

    For example: python -m training check photos --outliers others

    Finds inputs that cannot be read, blank ones, copies and near duplicates within and across the sets, copies with
    different labels, classes too small to calibrate, likely label errors, and single features that tell the outliers
    from the data. Exit code 0: no error; 1: errors, or data that cannot be read; 2: wrong usage.
    """
    # Imported here, so that `--help` does not wait for scikit-learn.
    from training.data import DataLocations
    from training.data_check import CheckOptions, Columns, check_data, page
    from training.export.bundle_folder import bundle_name

    columns = Columns(image=image_column, text=text_column, label=label_column)
    options = CheckOptions(data=data, test=test, outliers=outliers, columns=columns, alpha=alpha, backbone=backbone)
    with progress_bars() as bars:
        checked = check_data(options, DataLocations(data_dir=Path("/")), bars.report)
    report = checked.report
    folder = output_folder or Path("runs") / f"{bundle_name(data.resolve().stem)}-check"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "check.json").write_text(report.to_json(), encoding="utf-8")
    (folder / "check.html").write_text(page(report, checked.sets), encoding="utf-8")
    if report.findings:
        table = Table("severity", "check", "finding", show_lines=True)
        for finding in report.findings:
            message = escape(visible(f"{finding.message}. {finding.remedy}."))
            table.add_row(f"[{_COLOURS[finding.severity]}]{finding.severity}[/]", finding.check, message)
        output.print(table)
    announce(f"{report.errors} errors, {report.warnings} warnings; examples: {folder / 'check.html'}")
    if report.errors or (strict and report.warnings):
        raise typer.Exit(1)
