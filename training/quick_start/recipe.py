"""Quick start: makes a recipe for a user's data that trains within minutes on a CPU."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import ImageInput
from training.data import DataLocations, class_folders, guess_source
from training.data.labels import class_counts
from training.data.source_guess import holds_texts, train_and_test_folders
from training.data.sources import Rows, read_rows
from training.data.text_loading import read_texts
from training.data_check.class_sizes import (
    MIN_EXAMPLES,
    MIN_OUTLIERS,
    MIN_PER_CLASS,
    SplitSizes,
    calibration_examples,
    split_sizes,
)
from training.data_check.shortcut_features import image_features, separations, text_features
from training.errors import DataError
from training.evaluation import ShortcutCheck
from training.export.bundle_folder import bundle_name
from training.pretrained_files import find_pretrained
from training.quick_start.backbone_input import image_backbone_input, text_backbone_input
from training.quick_start.outlier_split import OutlierSplit, split_outliers
from training.quick_start.presets import WITHOUT_OUTLIERS, image_preset, pretrained_preset, text_preset
from training.quick_start.survey import survey_images, survey_words
from training.recipe import Recipe, Source, TextConfig, apply_override, parse_recipe
from training.scoring.calibration import DEFAULT_ALPHA, attainable_alpha

_HELD_OUT, _LIKE_TRAINED, _VALIDATION = "held-out-outliers", "outliers-like-those-trained-on", "validation-outliers"
"""The outliers' sets: whole sub-folders or labels, or a random part, whose detection is a bound; and for validation."""
_SHOWN_GROUPS = 10
_FOLDERS = "Give a folder with one sub-folder of images per class, or a .csv of texts with the columns text and label"


@dataclass(frozen=True)
class QuickStartInputs:
    """The data of a quick start, and its pretrained backbone.

    Attributes:
        in_dist: The labelled in-distribution data: a table, or a folder of images with one sub-folder per class, or
            with a training and a test split that have them.
        outliers: Inputs of none of its classes; None if there are none.
        backbone: A pretrained model, whose features a classifier is trained on: an ONNX file, the folder of a
            `transformers` model, or the name of one on the hub.
        preprocess: The preset of the backbone's images; None for the files next to the backbone.
    """

    in_dist: Path
    outliers: Path | None = None
    backbone: str | None = None
    preprocess: str | None = None


@dataclass(frozen=True)
class QuickStart:
    """The result of a quick start.

    Attributes:
        recipe: The recipe.
        data_dir: The folder that the recipe's paths start from.
        notes: Messages that explain the recipe's settings.
        shortcuts: The shortcut check of the data; None without outliers.
    """

    recipe: Recipe
    data_dir: Path
    notes: tuple[str, ...]
    shortcuts: ShortcutCheck | None


@dataclass(frozen=True)
class _Outliers:
    """The outliers, with their path relative to the data folder, their rows and their split."""

    source: Source
    rows: Rows
    split: OutlierSplit


@dataclass(frozen=True)
class _Data:
    """The in-distribution source and test source, if it has one of its own, and its rows; the outliers."""

    in_dist: Source
    test: Source | None
    in_dist_rows: Rows
    outliers: _Outliers | None


def quick_start(
    inputs: QuickStartInputs,
    *,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    overrides: Sequence[str] = (),
    allow_code: bool = False,
) -> QuickStart:
    """Make a recipe for image folders or tables. Nothing is trained.

    Args:
        inputs: The data and the backbone.
        name: The recipe's name; by default that of the in-distribution data.
        size: (height, width) of the model's input, for images.
        overrides: Changes to the recipe of the form `key.path=value`.
        allow_code: Whether they may name callables to import.

    Raises:
        DataError: No detector can be trained on the data.
        BackboneError, GraphError: The backbone cannot be used.
        RecipeError: An override is invalid.
    """
    in_dist, outliers = inputs.in_dist, inputs.outliers
    _require_separate(in_dist, outliers)
    parents = [path.resolve().parent for path in (in_dist, outliers) if path is not None]
    data_dir = Path(os.path.commonpath(parents))
    is_text = holds_texts(in_dist)
    if outliers is not None and is_text != holds_texts(outliers):
        kinds = ("texts", "images") if is_text else ("images", "texts")
        reason = f"holds {kinds[1]}, {in_dist} holds {kinds[0]}"
        raise DataError(str(outliers), reason, "Give outliers of the same kind")
    if is_text and outliers is None:
        reason = f"is missing: {in_dist} holds texts, and there are no synthetic texts to test a detector on"
        raise DataError("--outliers", reason, "Give texts of none of your classes, one per line in a .txt file")
    if is_text and size is not None:
        raise DataError("--size", "is for images", f"Leave it out: {in_dist} holds texts")
    if inputs.preprocess is not None and inputs.backbone is None:
        raise DataError("--preprocess", "is for the images of a backbone", "Leave it out, or give --backbone")
    if is_text and inputs.preprocess is not None:
        raise DataError("--preprocess", "is for images", f"Leave it out: {in_dist} holds texts")
    data = _read(inputs, data_dir, is_text=is_text)
    counts = _require_classes(data.in_dist_rows, in_dist)
    sizes = split_sizes(len(data.in_dist_rows), None if data.test is None else _count(data.test, data_dir))
    preset, backbone_notes = _preset(inputs, data, sizes, size, data_dir)
    raw = _recipe(preset, data, sizes, bundle_name(name or in_dist.resolve().stem))
    for override in overrides:
        apply_override(raw, override)
    recipe = parse_recipe(raw, "the quick start's recipe", allow_code=allow_code)
    shortcuts = None if data.outliers is None else _shortcuts(data, data.outliers, recipe.input)
    warnings = () if shortcuts is None else shortcuts.warnings
    notes = (*_notes(data, sizes, len(counts)), *backbone_notes, *_mirroring(recipe), *warnings)
    return QuickStart(recipe, data_dir, notes, shortcuts)


def _require_separate(in_dist: Path, outliers: Path | None) -> None:
    """Raise DataError unless the paths exist and neither contains the other."""
    for path in (in_dist, outliers):
        if path is not None and not path.exists():
            raise DataError(str(path), "does not exist", _FOLDERS)
    if outliers is None:
        return
    one, other = in_dist.resolve(), outliers.resolve()
    if one == other:
        raise DataError(str(outliers), "is the in-distribution data itself", "Outliers show none of your classes")
    if other.is_relative_to(one) or one.is_relative_to(other):
        reason = f"and {in_dist} contain one another, so that inputs would be in both"
        raise DataError(str(outliers), reason, "Put them into separate folders")


def _preset(
    inputs: QuickStartInputs, data: _Data, sizes: SplitSizes, size: tuple[int, int] | None, data_dir: Path
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The sections of the recipe that depend on the kind and number of inputs, and messages on the backbone."""
    if inputs.backbone is not None:
        path = find_pretrained(inputs.backbone, Path())
        spec: ImageInput | TextConfig
        if data.in_dist_rows.images is None:
            spec, note = text_backbone_input(path)
        else:
            spec, note = image_backbone_input(path, preprocess=inputs.preprocess, size=size)
        is_local = Path(inputs.backbone).exists()
        name = os.path.relpath(path.resolve(), data_dir) if is_local else inputs.backbone
        return pretrained_preset(sizes.train, spec, name), (f"backbone {Path(inputs.backbone).name}: {note}",)
    if data.in_dist_rows.images is None:
        return text_preset(sizes.train, survey_words(data.in_dist_rows.texts)), ()
    return image_preset(sizes.train, survey_images(data.in_dist_rows), size, test_size=sizes.test), ()


def _read(inputs: QuickStartInputs, data_dir: Path, *, is_text: bool) -> _Data:
    """Open the sources; DataError if the in-distribution data have no classes or there are too few outliers."""
    locations = DataLocations(data_dir=data_dir)

    def rows(source: Source) -> Rows:
        return read_texts(source, locations) if is_text else read_rows(source, data_dir, "image")

    in_dist, test = inputs.in_dist, None
    if (splits := train_and_test_folders(in_dist)) is not None:
        in_dist, test = splits[0], guess_source(splits[1], data_dir)
    source = guess_source(in_dist, data_dir)
    if source.label is None:
        raise DataError(str(in_dist), "has no classes", _FOLDERS)
    if in_dist.is_dir() and (empty := [name for name, images in class_folders(in_dist).items() if not images]):
        raise DataError(str(in_dist), f"has no image of the class {', '.join(empty)}", "Add some or remove the folder")
    if inputs.outliers is None:
        return _Data(source, test, rows(source), None)
    labelled = guess_source(inputs.outliers, data_dir)
    outliers = labelled.model_copy(update={"label": None})
    outlier_rows = rows(outliers)
    if (n := len(outlier_rows)) < MIN_OUTLIERS:
        raise DataError(str(inputs.outliers), f"holds {n} outliers", f"Give {MIN_OUTLIERS} or, better, thousands")
    split = split_outliers(labelled, rows, validate=inputs.backbone is not None)
    return _Data(source, test, rows(source), _Outliers(outliers, outlier_rows, split))


def _count(test: Source, data_dir: Path) -> int:
    return len(read_rows(test, data_dir, "image"))


def _require_classes(rows: Rows, path: Path) -> dict[str, int]:
    """The number of examples by class; DataError if there are too few classes or examples."""
    counts = {} if rows.y is None else class_counts(rows.y, rows.labels)
    if len(counts) < 2:
        raise DataError(str(path), f"has {len(counts)} class ({', '.join(counts)})", "A classifier needs two or more")
    if few := {label: count for label, count in counts.items() if count < MIN_PER_CLASS}:
        listed = ", ".join(f"{label} {count}" for label, count in few.items())
        reason = f"has too few examples of some classes ({listed})"
        raise DataError(str(path), reason, f"Give {MIN_PER_CLASS} or more of each, or remove the class")
    if (n := sum(counts.values())) < MIN_EXAMPLES:
        reason = f"holds {n} examples, too few to train on, calibrate with and test on"
        raise DataError(str(path), reason, f"Give {MIN_EXAMPLES} or more")
    return counts


def _recipe(preset: dict[str, Any], data: _Data, sizes: SplitSizes, name: str) -> dict[str, Any]:
    """The recipe's plain data: the preset with the sections that depend on the data."""
    test = {"test_size": sizes.test} if data.test is None else {"test": _changed_keys(data.test)}
    recipe = preset | {
        "name": name,
        "description": f"Tells {', '.join(data.in_dist_rows.labels)} from anything else; made by a quick start.",
        "in_distribution": {"train": _changed_keys(data.in_dist), **test, "calibration_size": sizes.calibration},
        "export": {"stage": "oe", "alpha": attainable_alpha(sizes.calibration), **preset.get("export", {})},
    }
    if data.outliers is None:
        recipe["stages"] = {"baseline": preset["stages"]["baseline"]}
        recipe["export"] = {"scores": WITHOUT_OUTLIERS, **recipe["export"], "stage": "baseline"}
        return recipe
    split = data.outliers.split
    sets = {_HELD_OUT if split.held_out else _LIKE_TRAINED: _changed_keys(split.test)}
    validation = {} if split.validation is None else {_VALIDATION: _changed_keys(split.validation)}
    return recipe | {
        "outliers": {"train": _changed_keys(split.train), "duplicates": "remove"},
        "evaluation": {"ood": {**sets, **preset["evaluation"]["ood"]}, "validation": validation},
    }


def _changed_keys(source: Source) -> dict[str, Any]:
    return source.model_dump(mode="json", exclude_defaults=True)


def _shortcuts(data: _Data, outliers: _Outliers, config: ImageInput | TextConfig) -> ShortcutCheck:
    """The check by which single features the outliers differ from the in-distribution data."""
    if isinstance(config, TextConfig):
        of_in_dist, of_outliers = text_features(
            data.in_dist_rows.texts,
            outliers.rows.texts,
            config.model_copy(update={"tokenizer": None}),
        )
    else:
        of_in_dist, of_outliers = image_features(data.in_dist_rows), image_features(outliers.rows)
    return ShortcutCheck(
        in_distribution=data.in_dist.path,
        outliers=outliers.source.path,
        features=separations(of_in_dist, of_outliers),
    )


def _notes(data: _Data, sizes: SplitSizes, classes: int) -> Iterator[str]:
    """Messages on the splits, on the outliers' test set and, if the default is unattainable, on alpha."""
    splits = (
        f"{len(data.in_dist_rows):,} examples of {classes} classes: {sizes.train:,} to train on, "
        f"{sizes.calibration:,} to calibrate with, {sizes.test:,} {'' if data.test is None else 'others '}to test on"
    )
    if data.outliers is None:
        yield splits
        yield (
            "no outliers: the scores compare features with those of the training examples, and the report has figures "
            "of noise only; with --outliers it measures unseen kinds of inputs, too"
        )
    else:
        held_out = data.outliers.split.held_out
        yield f"{splits}; {len(data.outliers.rows):,} outliers{'' if held_out else ', a fifth of them to test on'}"
        yield _test_note(held_out)
    alpha = attainable_alpha(sizes.calibration)
    if alpha > DEFAULT_ALPHA:
        least = f"the least that {sizes.calibration} calibration examples can flag anything at"
        yield f"alpha is {alpha:g}, {least}; {calibration_examples(DEFAULT_ALPHA)} would do for {DEFAULT_ALPHA:g}"


def _test_note(held_out: Sequence[str]) -> str:
    """A message on the outliers' test set, which consists of the sub-folders or labels `held_out`."""
    if not held_out:
        return (
            f"the outliers have no sub-folders or labels to hold out: the figures of {_LIKE_TRAINED} are an upper "
            "bound for outliers from other sources"
        )
    shown, more = held_out[:_SHOWN_GROUPS], len(held_out) - _SHOWN_GROUPS
    names = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    return f"outliers to test on, none of which are trained on: {names}"


def _mirroring(recipe: Recipe) -> tuple[str, ...]:
    """A message if training mirrors images, with the overrides that prevent it."""
    mirroring = [
        name
        for name, stage in recipe.stages.items()
        if isinstance(recipe.input, ImageInput) and recipe.backbone is None and stage.augmentation.flip
    ]
    if not mirroring:
        return ()
    overrides = " ".join(f"stages.{name}.augmentation.flip=false" for name in mirroring)
    return (
        "half of the training images are mirrored; if a mirrored image does not belong to its class (signs, letters), "
        f"add {overrides}",
    )
