"""The two uses of `run`: with a recipe, or with data that a recipe is made of."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.commands.wrap import parse_size
from training.console import console
from training.errors import RecipeError
from training.quick_start.recipe import quick_start
from training.recipe import Recipe, load_recipe

_USES = "Give RECIPE, or both --in-distribution DIR and --outliers DIR"


@dataclass(frozen=True)
class QuickOptions:
    """What stands in for a recipe."""

    in_distribution: Path | None
    outliers: Path | None
    name: str | None
    size: str | None


@dataclass(frozen=True)
class ResolvedRun:
    """A recipe, `made_of_data` or read from a file, and where its paths start: `root`, or the default where None."""

    recipe: Recipe
    root: Path | None
    made_of_data: bool


def resolve_run(given: str | None, overrides: Sequence[str], data: Path | None, quick: QuickOptions) -> ResolvedRun:
    """The run of the recipe file `given`, or of the data in `quick`; RecipeError unless exactly one is there."""
    if quick.in_distribution is None and quick.outliers is None:
        if given is None:
            raise RecipeError("run", "has nothing to train on", _USES)
        if quick.name is not None or quick.size is not None:
            remedy = "Override the recipe's keys instead: name=NAME input.height=32 input.width=32"
            raise RecipeError("run", "takes --name and --size only without a recipe", remedy)
        return ResolvedRun(load_recipe(Path(given), overrides), data, made_of_data=False)
    if given is not None and "=" in given:
        # Without a recipe, the first word is an override already.
        overrides = [given, *overrides]
        given = None
    if given is not None:
        raise RecipeError("run", f"got the recipe {given} and --in-distribution or --outliers", "Give one or the other")
    if quick.in_distribution is None:
        raise RecipeError("--in-distribution", "is missing", _USES)
    if quick.outliers is None:
        remedy = "Give any inputs of none of your classes: a public data set, pictures of other things"
        raise RecipeError("--outliers", "is missing", remedy)
    size = None if quick.size is None else parse_size(quick.size)
    made = quick_start(quick.in_distribution, quick.outliers, name=quick.name, size=size, overrides=overrides)
    for note in made.notes:
        console.print(note, highlight=False)
    return ResolvedRun(made.recipe, made.root, made_of_data=True)


def show_recipe(path: Path, root: Path | None) -> None:
    """Print where the recipe that was made is kept, and how to go on from it."""
    again = f"python -m training run {shlex.quote(str(path))} --data {shlex.quote(str(root))}"
    console.print(
        f"recipe: {path}\nchange it and go on with: {again} --overwrite", soft_wrap=True, highlight=False, markup=False
    )
