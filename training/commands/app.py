"""The command line: `python -m training` and `ood-train`."""

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.markup import escape

from training.commands.wrap import wrap
from training.console import console, output
from training.run import Run

app = typer.Typer(
    help=(
        "Train classifiers of images and texts with Outlier Exposure, calibrate them, evaluate them as the paper does "
        "and export them as bundles that `python -m service` serves.\n\n"
        "Start with your own data: python -m training run --in-distribution DIR --outliers DIR\n\n"
        "Or with a model you already have: python -m training wrap MODEL.onnx --calibration DIR"
    ),
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(wrap)

RecipeArgument = Annotated[Path, typer.Argument(help="Recipe file (YAML); see training/recipes.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Recipe keys to override, for example stages.oe.epochs=3", show_default=False),
]
RunArgument = Annotated[Path, typer.Argument(help="Run directory, for example runs/cifar10-oe.", show_default=False)]
RunOption = Annotated[Path | None, typer.Option("--run", help="Run directory (else runs/<recipe name>).")]
DataOption = Annotated[
    Path | None, typer.Option("--data", envvar="OOD_DATA", help="Directory that the recipe's paths start from.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue an interrupted stage from its checkpoint.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Start anew, replacing an earlier run.")]
DevicesOption = Annotated[
    int | None, typer.Option("--devices", min=1, help="Train on so many devices (DDP); sets trainer.devices.")
]
VersionOption = Annotated[
    int | None, typer.Option("--version", min=1, help="Version of the bundle, in place of the recipe's.")
]
ModelsOption = Annotated[Path, typer.Option("--models", help="Model repository that the bundle is written to.")]


@app.command()
def fit(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run: RunOption = None,
    data_dir: DataOption = None,
    devices: DevicesOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Train every stage of RECIPE. Finished stages are kept; Ctrl-C keeps the last epoch's checkpoint."""
    from training import steps
    from training.recipe import load_recipe

    started = steps.start_run(load_recipe(recipe, _with_devices(overrides, devices)), run, overwrite=overwrite)
    steps.fit_run(started, steps.data_locations(data_dir), resume=resume)


@app.command()
def calibrate(run: RunArgument, data_dir: DataOption = None) -> None:
    """Score the held-out in-distribution split with every stage of RUN."""
    from training import steps

    steps.calibrate_run(Run.open(run), steps.data_locations(data_dir))


@app.command()
def evaluate(run: RunArgument, data_dir: DataOption = None) -> None:
    """Measure every stage of RUN on every out-of-distribution set: report.json, report.md and plots."""
    from training import steps

    steps.evaluate_run(Run.open(run), steps.data_locations(data_dir))


@app.command()
def export(
    run: RunArgument,
    data_dir: DataOption = None,
    models: ModelsOption = Path("models"),
    version: VersionOption = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option("--precision", help="What the graph computes in; a lower one is a bundle NAME-fp16, NAME-int8."),
    ] = "fp32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle if it exists.")] = False,
) -> None:
    """Write RUN's exported stage as a bundle, refused unless ONNX Runtime scores real inputs as torch does.

    A bundle in lower precision is calibrated and evaluated through its own graph, and refused when the AUROC of any of
    the report's sets moves by 0.1 points or more.
    """
    from training import steps

    locations = steps.data_locations(data_dir)
    path = steps.export_run(Run.open(run), locations, models, version=version, precision=precision, overwrite=overwrite)
    console.print(f"bundle: {path}")


@app.command("run")
def run_all(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe file (YAML); see training/recipes.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    in_distribution: Annotated[
        Path | None,
        typer.Option("--in-distribution", help="Your data: a folder of images, one sub-folder per class, or a .csv."),
    ] = None,
    outliers: Annotated[
        Path | None, typer.Option("--outliers", help="Inputs of none of your classes: a folder, .csv or .txt.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name without a recipe (else the folder's).")] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Image size without a recipe, HxW (else the files', 32x32 at most).")
    ] = None,
    run: RunOption = None,
    data_dir: DataOption = None,
    models: ModelsOption = Path("models"),
    version: VersionOption = None,
    devices: DevicesOption = None,
    resume: ResumeOption = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew, replacing an earlier run and bundle.")
    ] = False,
) -> None:
    """From data to a bundle in one go: fit, calibrate, evaluate and export.

    With a recipe, which says everything:
    python -m training run training/recipes/cifar10-oe.yaml --data DIR stages.oe.epochs=3

    Without one, on a folder of images with a sub-folder per class, or a CSV file with the columns text and label. A
    small network is trained within minutes on a CPU, and the recipe that was made of the data is kept to go on from:
    python -m training run --in-distribution DIR --outliers DIR
    """
    from training import steps
    from training.commands.run import QuickStartOptions, print_next_steps, print_recipe_path, resolve_run
    from training.export.bundle_export import recipe_bundle_path

    quick_start = QuickStartOptions(in_distribution, outliers, name, size)
    resolved = resolve_run(recipe, _with_devices(overrides, devices), data_dir, quick_start)
    started = steps.start_run(resolved.recipe, run, overwrite=overwrite)
    if resolved.is_quick_start:
        print_recipe_path(started.recipe_path, resolved.data_dir)
    locations = steps.data_locations(resolved.data_dir)
    # Checked before training, which can take hours: the bundle must not exist.
    recipe_bundle_path(started.recipe, models, version=version, overwrite=overwrite)
    steps.fit_run(started, locations, resume=resume)
    steps.calibrate_run(started, locations)
    steps.evaluate_run(started, locations)
    path = steps.export_run(started, locations, models, version=version, overwrite=overwrite)
    print_next_steps(path, models)


@app.command()
def inspect(bundle: Annotated[Path, typer.Argument(help="Bundle directory.", show_default=False)]) -> None:
    """Verify BUNDLE and show what it is, how it was made and how well it does."""
    from training.commands.inspect import facts, results

    output.print(facts(bundle))
    if (table := results(bundle)) is not None:
        output.print(table)


@app.command()
def paper(
    models: Annotated[Path, typer.Option("--models", help="Model repository whose reports are compared.")] = Path(
        "models"
    ),
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Show the paper's tables: what the bundles' own reports measured beside what the paper reports."""
    from training.paper import as_markdown, as_text, compare, latest_reports, paper_tables

    reports = latest_reports(models)
    for table in paper_tables():
        comparison = compare(table, reports)
        if markdown:
            typer.echo(as_markdown(comparison))
        else:
            output.print(as_text(comparison))


def _with_devices(overrides: list[str] | None, devices: int | None) -> list[str]:
    """The overrides, with those that `--devices` stands for."""
    overrides = overrides or []
    return overrides if devices is None else [*overrides, f"trainer.devices={devices}", "trainer.strategy=ddp"]


def main() -> None:
    """Run the command line; errors are one readable line and exit code 1, Ctrl-C is exit code 130."""
    from bundle import BundleError
    from training.errors import TrainingError

    try:
        app()
    except (TrainingError, BundleError) as error:
        _exit_with(str(error))
    except OSError as error:
        _exit_with(f"{error}. A run keeps its checkpoints; continue one with --resume")


def _exit_with(message: str) -> NoReturn:
    """Print the message of an error and exit with code 1."""
    console.print(f"[bold red]error[/] {escape(message)}", highlight=False)
    sys.exit(1)
