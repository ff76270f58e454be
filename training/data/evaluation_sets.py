"""Evaluation sets: loads a recipe's out-of-distribution sets without inputs that would make their figures wrong."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.data.assembly import InDistributionData, load_set
from training.data.examples import Examples
from training.data.reader import Reader
from training.data.sources import Progress
from training.data.synthetic import DISTORTIONS
from training.errors import OverlapError
from training.recipe import Recipe, Source, Synthetic, TestSet


@dataclass(frozen=True)
class EvaluationSet:
    """An out-of-distribution set.

    Attributes:
        examples: The inputs that are measured.
        trained_on: The number of inputs left out because they are (nearly) training outliers.
        unknown: The number of texts left out because all their tokens are unknown to the model.
    """

    examples: Examples
    trained_on: int = 0
    unknown: int = 0


def load_evaluation_sets(
    recipe: Recipe,
    reader: Reader,
    in_dist: InDistributionData,
    outliers: Examples | None,
    progress: Progress | None = None,
) -> Mapping[str, EvaluationSet]:
    """Load the test and validation sets of the recipe, in its order.

    A validation set that distorts images distorts the recipe's held-out outliers, or else in-distribution training
    images: in-distribution test images must not influence any choice.

    Args:
        recipe: The recipe.
        reader: The reader of its inputs.
        in_dist: The in-distribution data.
        outliers: The outliers that stages are trained on, if there are any.
        progress: Called while sets are read and compared.

    Raises:
        DataError: A set cannot be read.
        OverlapError: No input of a set remains.
    """
    validation = [config for config in recipe.evaluation.validation.values() if isinstance(config, Synthetic)]
    distorted = in_dist.train
    if recipe.evaluation.held_out_outliers is not None and any(set_.synthetic in DISTORTIONS for set_ in validation):
        distorted = _held_out_outliers(recipe.evaluation.held_out_outliers, reader, outliers, progress)
    sets = {}
    for name, config in recipe.evaluation.sets.items():
        basis = distorted if name in recipe.evaluation.validation else in_dist.test
        seed = recipe.seed + 1 if _is_kind_of_outliers(config, recipe) else recipe.seed
        examples = load_set(config, reader, basis, name=name, seed=seed, spec=recipe.input, progress=progress)
        may_repeat = isinstance(config, Source) or _is_kind_of_outliers(config, recipe)
        sets[name] = _clean(examples, reader, outliers if may_repeat else None, progress)
    return sets


def _held_out_outliers(
    config: Source, reader: Reader, outliers: Examples | None, progress: Progress | None
) -> Examples:
    examples = reader.load(config, name="held-out outliers", progress=progress)
    return _clean(examples, reader, outliers, progress).examples


def _is_kind_of_outliers(config: TestSet, recipe: Recipe) -> bool:
    """Whether the set is synthetic and of the kind of the training outliers.

    The same seed would generate the images that were trained on.
    """
    if recipe.outliers is None or not isinstance(config, Synthetic):
        return False
    train = recipe.outliers.train
    return isinstance(train, Synthetic) and train.synthetic == config.synthetic


def _clean(examples: Examples, reader: Reader, outliers: Examples | None, progress: Progress | None) -> EvaluationSet:
    """The set without texts of unknown tokens only and without training outliers."""
    unknown = reader.unknown_only(examples)
    trained_on = np.empty(0, dtype=np.int64)
    if outliers is not None:
        overlap = reader.overlap(outliers, examples, f"overlap of {examples.name}", progress)
        trained_on = np.setdiff1d(overlap.rows, unknown)
    kept = np.setdiff1d(np.arange(len(examples)), np.union1d(unknown, trained_on))
    if not len(kept):
        reason = f"has no input for the set '{examples.name}': {len(trained_on)} are training outliers"
        reason += f" and {len(unknown)} have unknown tokens only" if len(unknown) else ""
        raise OverlapError(examples.source, reason, "Name another set")
    # A complete set keeps its hash.
    remaining = examples if len(kept) == len(examples) else examples.rows(kept)
    return EvaluationSet(remaining, len(trained_on), len(unknown))
