"""Quick start: makes a recipe for a user's data that trains within minutes on a CPU."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bundle import ImageInput
from training.data import DataLocations, class_folders, guess_source
from training.data.source_guess import holds_texts
from training.data.sources import Rows, read_rows
from training.data.text_loading import read_texts
from training.data_check.class_sizes import MIN_EXAMPLES, MIN_OUTLIERS, MIN_PER_CLASS, SplitSizes, split_sizes
from training.data_check.shortcut_features import image_features, separations, text_features
from training.errors import DataError
from training.evaluation import ShortcutCheck
from training.export.bundle_folder import bundle_name
from training.quick_start.held_out import held_out_groups
from training.quick_start.presets import image_preset, text_preset
from training.quick_start.survey import survey_images, survey_words
from training.recipe import Recipe, Source, TextConfig, apply_override, parse_recipe
from training.scoring.calibration import DEFAULT_ALPHA, attainable_alpha

_TRAIN_SHARE = 0.8
"""The share of the outliers for training; the others are a test set."""
_HELD_OUT, _LIKE_TRAINED = "held-out-outliers", "outliers-like-those-trained-on"
"""The name of the outliers' test set: whole sub-folders or labels, or a random part, whose detection is a bound."""
_SHOWN_GROUPS = 10
_FOLDERS = "Give a folder with one sub-folder of images per class, or a .csv of texts with the columns text and label"


@dataclass(frozen=True)
class QuickStart:
    """A recipe whose paths start from `data_dir`, messages that explain its settings, and the data's shortcut check."""

    recipe: Recipe
    data_dir: Path
    notes: tuple[str, ...]
    shortcuts: ShortcutCheck


@dataclass(frozen=True)
class _Data:
    """The in-distribution source and the outliers, with paths relative to the data folder, and their rows.

    `outlier_train` and `outlier_test` are disjoint selections of the rows of `outliers`. `held_out` are the sub-folders
    or labels of the test selection, none if it is a random part.
    """

    in_dist: Source
    in_dist_rows: Rows
    outliers: Source
    outlier_rows: Rows
    outlier_train: Source
    outlier_test: Source
    held_out: tuple[str, ...]


def quick_start(
    in_dist: Path,
    outliers: Path,
    *,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    overrides: Sequence[str] = (),
    allow_code: bool = False,
) -> QuickStart:
    """Make a recipe for two image folders or two tables. Nothing is trained.

    Args:
        in_dist: The labelled in-distribution data.
        outliers: Inputs of none of its classes.
        name: The recipe's name; by default that of the in-distribution data.
        size: (height, width) of the model's input, for images.
        overrides: Changes to the recipe of the form `key.path=value`.
        allow_code: Whether they may name callables to import.

    Raises:
        DataError: No detector can be trained on the data.
        RecipeError: An override is invalid.
    """
    _require_separate(in_dist, outliers)
    data_dir = Path(os.path.commonpath([in_dist.resolve().parent, outliers.resolve().parent]))
    is_text = holds_texts(in_dist)
    if is_text != holds_texts(outliers):
        kinds = ("texts", "images") if is_text else ("images", "texts")
        reason = f"holds {kinds[1]}, {in_dist} holds {kinds[0]}"
        raise DataError(str(outliers), reason, "Give outliers of the same kind")
    if is_text and size is not None:
        raise DataError("--size", "is for images", f"Leave it out: {in_dist} holds texts")
    data = _read(in_dist, outliers, data_dir, is_text=is_text)
    counts = _require_classes(data.in_dist_rows, in_dist)
    sizes = split_sizes(len(data.in_dist_rows))
    if is_text:
        preset = text_preset(sizes.train, survey_words(data.in_dist_rows.texts))
    else:
        typical = survey_images(data.in_dist_rows)
        preset = image_preset(sizes.train, typical, size, test_size=sizes.test)
    raw = _recipe(preset, data, sizes, bundle_name(name or in_dist.resolve().stem))
    for override in overrides:
        apply_override(raw, override)
    recipe = parse_recipe(raw, "the quick start's recipe", allow_code=allow_code)
    shortcuts = _shortcuts(data, recipe.input)
    notes = (*_notes(data, sizes, len(counts)), *_mirroring(recipe), *shortcuts.warnings)
    return QuickStart(recipe, data_dir, notes, shortcuts)


def _require_separate(in_dist: Path, outliers: Path) -> None:
    """Raise DataError unless both paths exist and neither contains the other."""
    for path in (in_dist, outliers):
        if not path.exists():
            raise DataError(str(path), "does not exist", _FOLDERS)
    one, other = in_dist.resolve(), outliers.resolve()
    if one == other:
        raise DataError(str(outliers), "is the in-distribution data itself", "Outliers show none of your classes")
    if other.is_relative_to(one) or one.is_relative_to(other):
        reason = f"and {in_dist} contain one another, so that inputs would be in both"
        raise DataError(str(outliers), reason, "Put them into separate folders")


def _read(in_dist: Path, outliers: Path, data_dir: Path, *, is_text: bool) -> _Data:
    """Open both sources; DataError if the in-distribution data have no classes or there are too few outliers."""
    locations = DataLocations(data_dir=data_dir)

    def rows(source: Source) -> Rows:
        return read_texts(source, locations) if is_text else read_rows(source, data_dir, "image")

    source = guess_source(in_dist, data_dir)
    if source.label is None:
        raise DataError(str(in_dist), "has no classes", _FOLDERS)
    if in_dist.is_dir() and (empty := [name for name, images in class_folders(in_dist).items() if not images]):
        raise DataError(str(in_dist), f"has no image of the class {', '.join(empty)}", "Add some or remove the folder")
    labelled = guess_source(outliers, data_dir)
    outlier_source = labelled.model_copy(update={"label": None})
    outlier_rows = rows(outlier_source)
    if (n := len(outlier_rows)) < MIN_OUTLIERS:
        raise DataError(str(outliers), f"holds {n} outliers", f"Give {MIN_OUTLIERS} or, better, thousands")
    groups = {} if labelled.label is None else _group_sizes(labelled, rows)
    held_out = held_out_groups(groups)
    if held_out:
        trained = tuple(name for name in groups if name not in held_out)
        train = labelled.model_copy(update={"exclude_labels": held_out})
        test = labelled.model_copy(update={"exclude_labels": trained})
    else:
        train = outlier_source.model_copy(update={"part": (0.0, _TRAIN_SHARE)})
        test = outlier_source.model_copy(update={"part": (_TRAIN_SHARE, 1.0)})
    return _Data(source, rows(source), outlier_source, outlier_rows, train, test, held_out)


def _group_sizes(source: Source, rows: Callable[[Source], Rows]) -> dict[str, int]:
    """The number of outliers by sub-folder or label; empty if a row has none."""
    try:
        labelled = rows(source)
    except DataError:
        return {}
    if labelled.y is None:
        return {}
    sizes = np.bincount(labelled.y, minlength=len(labelled.labels)).tolist()
    return dict(zip(labelled.labels, sizes, strict=True))


def _require_classes(rows: Rows, path: Path) -> Counter[str]:
    """The number of examples by class; DataError if there are too few classes or examples."""
    targets = [] if rows.y is None else rows.y.tolist()
    counts = Counter(dict.fromkeys(rows.labels, 0))
    counts.update(rows.labels[target] for target in targets)
    if len(counts) < 2:
        raise DataError(str(path), f"has {len(counts)} class ({', '.join(counts)})", "A classifier needs two or more")
    if few := {label: count for label, count in counts.items() if count < MIN_PER_CLASS}:
        listed = ", ".join(f"{label} {count}" for label, count in few.items())
        reason = f"has too few examples of some classes ({listed})"
        raise DataError(str(path), reason, f"Give {MIN_PER_CLASS} or more of each, or remove the class")
    if (n := len(targets)) < MIN_EXAMPLES:
        reason = f"holds {n} examples, too few to train on, calibrate with and test on"
        raise DataError(str(path), reason, f"Give {MIN_EXAMPLES} or more")
    return counts


def _recipe(preset: dict[str, Any], data: _Data, sizes: SplitSizes, name: str) -> dict[str, Any]:
    """The recipe's plain data: the preset with the sections that depend on the data."""
    in_dist, outliers = _changed_keys(data.in_dist), _changed_keys(data.outlier_train)
    test_set = _HELD_OUT if data.held_out else _LIKE_TRAINED
    return preset | {
        "name": name,
        "description": f"Tells {', '.join(data.in_dist_rows.labels)} from anything else; made by a quick start.",
        "in_distribution": {"train": in_dist, "test_size": sizes.test, "calibration_size": sizes.calibration},
        "outliers": {"train": outliers, "duplicates": "remove"},
        "export": {"stage": "oe", "alpha": attainable_alpha(sizes.calibration)},
        "evaluation": {"ood": {test_set: _changed_keys(data.outlier_test), **preset["evaluation"]["ood"]}},
    }


def _changed_keys(source: Source) -> dict[str, Any]:
    return source.model_dump(mode="json", exclude_defaults=True)


def _shortcuts(data: _Data, config: ImageInput | TextConfig) -> ShortcutCheck:
    """The check by which single features the outliers differ from the in-distribution data."""
    if isinstance(config, TextConfig):
        in_dist, outliers = text_features(
            data.in_dist_rows.texts,
            data.outlier_rows.texts,
            config.model_copy(update={"tokenizer": None}),
        )
    else:
        in_dist, outliers = image_features(data.in_dist_rows), image_features(data.outlier_rows)
    return ShortcutCheck(
        in_distribution=data.in_dist.path, outliers=data.outliers.path, features=separations(in_dist, outliers)
    )


def _notes(data: _Data, sizes: SplitSizes, classes: int) -> tuple[str, ...]:
    """Messages on the splits, on the outliers' test set and, if the default is unattainable, on alpha."""
    splits = (
        f"{len(data.in_dist_rows):,} examples of {classes} classes: {sizes.train:,} to train on, "
        f"{sizes.calibration:,} to calibrate with, {sizes.test:,} to test on; "
        f"{len(data.outlier_rows):,} outliers{'' if data.held_out else ', a fifth of them to test on'}"
    )
    if data.held_out:
        shown, more = data.held_out[:_SHOWN_GROUPS], len(data.held_out) - _SHOWN_GROUPS
        names = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
        test = f"outliers to test on, none of which are trained on: {names}"
    else:
        test = (
            f"the outliers have no sub-folders or labels to hold out: the figures of {_LIKE_TRAINED} are an upper "
            "bound for outliers from other sources"
        )
    alpha = attainable_alpha(sizes.calibration)
    if alpha <= DEFAULT_ALPHA:
        return splits, test
    least = f"the least that {sizes.calibration} calibration examples can flag anything at"
    return splits, test, f"alpha is {alpha:g}, {least}; {round(1 / DEFAULT_ALPHA) - 1} would do for {DEFAULT_ALPHA:g}"


def _mirroring(recipe: Recipe) -> tuple[str, ...]:
    """A message if training mirrors images, with the overrides that prevent it."""
    mirroring = [
        name
        for name, stage in recipe.stages.items()
        if isinstance(recipe.input, ImageInput) and stage.augmentation.flip
    ]
    if not mirroring:
        return ()
    overrides = " ".join(f"stages.{name}.augmentation.flip=false" for name in mirroring)
    return (
        "half of the training images are mirrored; if a mirrored image does not belong to its class (signs, letters), "
        f"add {overrides}",
    )
