"""The command `run`: finds or makes its recipe, and prints the commands to continue with."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from training.commands.options import parse_size
from training.console import console
from training.errors import RecipeError
from training.evaluation import ShortcutCheck
from training.quick_start.backbone_input import complete_input
from training.quick_start.default_backbone import NO_BACKBONE, default_backbone
from training.quick_start.recipe import QuickStartInputs, quick_start
from training.recipe import Recipe, load_recipe
from training.steps import data_locations

_USES = "Give RECIPE, or --in-distribution DIR and, better, --outliers DIR"

_SAMPLE_TYPES = {"sample.png": "image/png", "sample.txt": "text/plain"}


@dataclass(frozen=True)
class QuickStartOptions:
    """The options that replace a recipe."""

    in_distribution: Path | None
    outliers: Path | None
    backbone: str | None
    preprocess: str | None
    name: str | None
    size: str | None

    @property
    def only_without_recipe(self) -> Mapping[str, object]:
        """The options that change a quick start's recipe, by their names on the command line."""
        return {
            "--backbone": self.backbone,
            "--preprocess": self.preprocess,
            "--name": self.name,
            "--size": self.size,
        }


@dataclass(frozen=True)
class ResolvedRun:
    """The recipe of a run, and the data folder that its paths start from, None for the default.

    `is_made` says whether the recipe was made from data and not read from a file. `shortcuts` is the shortcut check of
    such data, None without outliers.
    """

    recipe: Recipe
    data_dir: Path | None
    is_made: bool = False
    shortcuts: ShortcutCheck | None = None


def resolve_run(
    recipe: str | None,
    overrides: Sequence[str],
    data_dir: Path | None,
    options: QuickStartOptions,
    *,
    allow_code: bool = False,
) -> ResolvedRun:
    """Load the recipe file `recipe`, or make a recipe for the data in `options`.

    Raises:
        RecipeError: Neither or both are given, or an option does not apply.
    """
    if options.in_distribution is None and options.outliers is None:
        if recipe is None:
            raise RecipeError("run", "has nothing to train on", _USES)
        if given := [option for option, value in options.only_without_recipe.items() if value is not None]:
            remedy = "Override the recipe's keys instead: name=NAME input.height=32 architecture.backbone=FILE"
            raise RecipeError("run", f"takes {' and '.join(given)} only without a recipe", remedy)
        return ResolvedRun(load_run_recipe(Path(recipe), overrides, data_dir, allow_code=allow_code), data_dir)
    if recipe is not None and "=" in recipe:
        # Without a recipe, the first argument is an override.
        overrides = [recipe, *overrides]
        recipe = None
    if recipe is not None:
        reason = f"got the recipe {recipe} and --in-distribution or --outliers"
        raise RecipeError("run", reason, "Give one or the other")
    if options.in_distribution is None:
        raise RecipeError("--in-distribution", "is missing", _USES)
    size = None if options.size is None else parse_size(options.size)
    start = quick_start(
        QuickStartInputs(options.in_distribution, options.outliers, _backbone(options), options.preprocess),
        name=options.name,
        size=size,
        overrides=overrides,
        allow_code=allow_code,
    )
    for note in start.notes:
        console.print(note, highlight=False)
    return ResolvedRun(start.recipe, start.data_dir, is_made=True, shortcuts=start.shortcuts)


def _backbone(options: QuickStartOptions) -> str | None:
    """The backbone of a quick start: the option's, or the default of the data; None for a network from scratch."""
    if options.backbone is not None:
        return None if options.backbone == NO_BACKBONE else options.backbone
    # A size of images, and a preset for a backbone that is not given, are those of a user who knows the model.
    if options.in_distribution is None or options.size is not None or options.preprocess is not None:
        return None
    name, message = default_backbone(options.in_distribution)
    if message:
        console.print(message, highlight=False)
    return name


def load_run_recipe(path: Path, overrides: Sequence[str], data_dir: Path | None, *, allow_code: bool) -> Recipe:
    """The recipe in the file `path`; the input of a pretrained backbone comes from its files if the recipe omits it.

    Raises:
        RecipeError: The file is no valid recipe.
        BackboneError, DataError, GraphError: The backbone's files do not state its input.
    """
    complete = partial(complete_input, data_dir=data_locations(data_dir).data_dir)
    return load_recipe(path, overrides, allow_code=allow_code, complete=complete)


def print_recipe_path(path: Path, data_dir: Path | None) -> None:
    """Print the path of a recipe that was made from data, and the command that trains it again after changes."""
    command = f"python -m training run {shlex.quote(str(path))} --data {shlex.quote(str(data_dir))}"
    _print_commands(f"recipe: {path}", f"change it and go on with: {command} --overwrite")


def print_next_steps(bundle: Path, models: Path) -> None:
    """Print the path of a new bundle, the command that serves the repository `models`, and a first request."""
    lines = [f"bundle: {bundle}", f"serve it with: python -m service --models {shlex.quote(str(models))}"]
    for name, content_type in _SAMPLE_TYPES.items():
        if (sample := bundle / name).exists():
            lines.append(
                f"then: curl --data-binary @{shlex.quote(str(sample))} -H 'Content-Type: {content_type}' "
                f"'http://127.0.0.1:8000/v1/models/{bundle.parent.name}/score'"
            )
    _print_commands(*lines)


def _print_commands(*lines: str) -> None:
    # Without wrapping at the terminal's width, so that the commands can be copied.
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
