"""The command line: `python -m training` and `ood-train`."""

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.markup import escape

from training.commands.check import check
from training.commands.wrap import wrap
from training.console import console, output
from training.run import Run

app = typer.Typer(
    help=(
        "Train classifiers of images and texts with Outlier Exposure, calibrate and evaluate them as in the paper, "
        "and export them as bundles for `python -m service`.\n\n"
        "Start with your own data: python -m training run --in-distribution DIR --outliers DIR\n\n"
        "Or with a model you already have: python -m training wrap MODEL.onnx --calibration DIR"
    ),
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(check)
app.command()(wrap)

RecipeArgument = Annotated[Path, typer.Argument(help="Recipe file (YAML); see training/recipes.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Recipe keys to override, for example stages.oe.epochs=3", show_default=False),
]
RunArgument = Annotated[Path, typer.Argument(help="Run directory, for example runs/cifar10-oe.", show_default=False)]
RunOption = Annotated[Path | None, typer.Option("--run", help="Run directory (default: runs/<recipe name>).")]
DataOption = Annotated[
    Path | None, typer.Option("--data", envvar="OOD_DATA", help="Folder that the recipe's paths are relative to.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue an interrupted stage from its checkpoint.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run and start again.")]
DevicesOption = Annotated[
    int | None, typer.Option("--devices", min=1, help="Number of devices to train on (DDP); sets trainer.devices.")
]
SkipOption = Annotated[
    bool,
    typer.Option("--skip-broken", help="Leave out inputs that cannot be read, and rows without a label; lists them."),
]
CodeOption = Annotated[
    bool,
    typer.Option("--allow-code", help="Import what the recipe names by a dotted path: this runs its code."),
]
VersionOption = Annotated[
    int | None, typer.Option("--version", min=1, help="Version of the bundle (default: the recipe's).")
]
ModelsOption = Annotated[Path, typer.Option("--models", help="Model repository to write the bundle to.")]


@app.command()
def fit(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run: RunOption = None,
    data_dir: DataOption = None,
    devices: DevicesOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    skip_broken: SkipOption = False,
    allow_code: CodeOption = False,
) -> None:
    """Train every stage of RECIPE. Finished stages are kept; Ctrl-C keeps the last epoch's checkpoint."""
    from training import steps
    from training.commands.run import load_run_recipe

    changes = _with_options(overrides, devices, skip_broken=skip_broken)
    loaded = load_run_recipe(recipe, changes, data_dir, allow_code=allow_code)
    started = steps.start_run(loaded, run, overwrite=overwrite)
    steps.fit_run(started, steps.data_locations(data_dir), resume=resume)


@app.command()
def calibrate(run: RunArgument, data_dir: DataOption = None, allow_code: CodeOption = False) -> None:
    """Score the held-out in-distribution split with every stage of RUN."""
    from training import steps

    steps.calibrate_run(Run.open(run, allow_code=allow_code), steps.data_locations(data_dir))


@app.command()
def evaluate(run: RunArgument, data_dir: DataOption = None, allow_code: CodeOption = False) -> None:
    """Evaluate every stage of RUN on every out-of-distribution set: report.json, report.md and plots."""
    from training import steps

    steps.evaluate_run(Run.open(run, allow_code=allow_code), steps.data_locations(data_dir))


@app.command()
def export(
    run: RunArgument,
    data_dir: DataOption = None,
    models: ModelsOption = Path("models"),
    version: VersionOption = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option("--precision", help="Number format of the graph; lower ones make bundles NAME-fp16, NAME-int8."),
    ] = "fp32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle if it exists.")] = False,
    allow_code: CodeOption = False,
) -> None:
    """Write the bundle of RUN, if ONNX Runtime gives the scores of torch on real inputs.

    A bundle in lower precision is calibrated and evaluated through its own graph. It is refused if the AUROC of any set
    of the report changes by 0.1 points or more.
    """
    from training import steps

    locations = steps.data_locations(data_dir)
    opened = Run.open(run, allow_code=allow_code)
    path = steps.export_run(opened, locations, models, version=version, precision=precision, overwrite=overwrite)
    console.print(f"bundle: {path}")


@app.command("run")
def run_all(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe file (YAML); see training/recipes.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    in_distribution: Annotated[
        Path | None,
        typer.Option(
            "--in-distribution", help="Your data: a folder of images, one sub-folder per class, or a table with labels."
        ),
    ] = None,
    outliers: Annotated[
        Path | None,
        typer.Option(
            "--outliers",
            help="Inputs of none of your classes: a folder, table or .txt. Without them, scores compare features with "
            "those of your data.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            help="Pretrained model of images or texts whose features are classified: an ONNX file, the folder of a "
            "transformers model, or the name of one on the hub; the files next to it state its preprocessing. Default: "
            "a small model of the hub if it suits the data and can be downloaded. 'none' trains a small network.",
        ),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option("--preprocess", help="Preprocessing of the backbone's images, a preset as in `wrap`."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name without a recipe (default: the folder's).")] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="Image size without a recipe, HxW (default: the files', 32x32 at most)."),
    ] = None,
    run: RunOption = None,
    data_dir: DataOption = None,
    models: ModelsOption = Path("models"),
    version: VersionOption = None,
    devices: DevicesOption = None,
    resume: ResumeOption = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier run and bundle and start again.")
    ] = False,
    skip_broken: SkipOption = False,
    allow_code: CodeOption = False,
) -> None:
    """Make a bundle from data: fit, calibrate, evaluate and export.

    With a recipe:
    python -m training run training/recipes/cifar10-oe.yaml --data DIR --version 2 stages.oe.epochs=3

    Without a recipe, on a folder of images with one sub-folder per class, or a CSV file with the columns text and
    label. This makes a recipe that trains within minutes on a CPU, and keeps it in the run directory:
    python -m training run --in-distribution DIR --outliers DIR

    By default it classifies the features of a small pretrained model of the hub, or of yours:
    python -m training run --in-distribution DIR --outliers DIR --backbone NAME|FOLDER|FILE.onnx
    """
    from training import steps
    from training.commands.run import QuickStartOptions, print_next_steps, print_recipe_path, resolve_run
    from training.export.bundle_export import recipe_bundle_path

    quick_start = QuickStartOptions(in_distribution, outliers, backbone, preprocess, name, size)
    changes = _with_options(overrides, devices, skip_broken=skip_broken)
    resolved = resolve_run(recipe, changes, data_dir, quick_start, allow_code=allow_code)
    started = steps.start_run(resolved.recipe, run, overwrite=overwrite)
    if resolved.shortcuts is not None:
        steps.save_shortcuts(started, resolved.shortcuts)
    if resolved.is_made:
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
    """Verify BUNDLE and show its manifest, its training and its results."""
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
    """Show the paper's tables, with the results in the bundles' reports beside the paper's."""
    from training.paper import as_markdown, as_text, compare, latest_reports, paper_tables

    reports = latest_reports(models)
    for table in paper_tables():
        comparison = compare(table, reports)
        if markdown:
            typer.echo(as_markdown(comparison))
        else:
            output.print(as_text(comparison))


def _with_options(overrides: list[str] | None, devices: int | None, *, skip_broken: bool) -> list[str]:
    """The overrides, plus those that `--devices` and `--skip-broken` set."""
    changes = list(overrides or [])
    if devices is not None:
        changes += [f"trainer.devices={devices}", "trainer.strategy=ddp"]
    return [*changes, "skip_broken=true"] if skip_broken else changes


def main() -> None:
    """Run the command line. An error prints one line and exits with code 1; Ctrl-C exits with code 130."""
    from bundle import BundleError, CalibrationError
    from training.errors import TrainingError

    try:
        app()
    except (TrainingError, BundleError, CalibrationError) as error:
        _exit_with(str(error))
    except OSError as error:
        _exit_with(f"{error}. A run keeps its checkpoints; continue one with --resume")


def _exit_with(message: str) -> NoReturn:
    """Print the message of an error and exit with code 1."""
    console.print(f"[bold red]error[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)
