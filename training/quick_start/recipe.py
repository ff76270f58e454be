"""Quick start: a recipe made from the data itself, sized to end within minutes on a CPU."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data import DataLocations, class_folders, columns_of, guess_source
from training.data.sources import Rows, read_rows
from training.data.text_loading import read_texts, strings
from training.errors import DataError
from training.export.bundle_folder import name_from
from training.quick_start.presets import image_preset, text_preset
from training.quick_start.survey import survey_images, survey_words
from training.recipe import Recipe, Source, apply_override, parse_recipe
from training.scoring.alpha import DEFAULT_ALPHA, attainable_alpha

_FEWEST, _FEWEST_OF_A_CLASS, _FEWEST_OUTLIERS = 70, 5, 10
_MOST_HELD_OUT = 5000
_TRAINED_ON = 0.8
"""The share of the outliers that is trained on; the others are a test set."""
_FOLDERS = "Give a folder with one sub-folder of images per class, or a .csv of texts with the columns text and label"


@dataclass(frozen=True)
class QuickStart:
    """A recipe whose paths start from `data_dir`, and what there is to say about its choices."""

    recipe: Recipe
    data_dir: Path
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """Both sources, relative to `data_dir`, and their rows."""

    source: Source
    rows: Rows
    outliers: Source
    outlier_rows: Rows


def quick_start(
    inside: Path,
    outliers: Path,
    *,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    overrides: Sequence[str] = (),
) -> QuickStart:
    """The recipe for the labelled data `inside` and the `outliers`, image folders or tables; nothing is trained.

    `size` is (height, width), for images. Raises DataError for what no detector can be trained on.
    """
    _require_apart(inside, outliers)
    data_dir = Path(os.path.commonpath([inside.resolve().parent, outliers.resolve().parent]))
    is_text = _holds_texts(inside)
    if is_text != _holds_texts(outliers):
        kinds = ("texts", "images") if is_text else ("images", "texts")
        raise DataError(str(outliers), f"holds {kinds[1]}, {inside} holds {kinds[0]}", "Give outliers of the same kind")
    if is_text and size is not None:
        raise DataError("--size", "is for images", f"Leave it out: {inside} holds texts")
    found = _read(inside, outliers, data_dir, is_text=is_text)
    counts = _require_classes(found, inside)
    n = len(found.rows.table)
    calibration = min(_MOST_HELD_OUT, max(round(0.2 * n), min(100, 3 * n // 10)))
    test = min(_MOST_HELD_OUT, round(0.15 * n))
    alpha = attainable_alpha(calibration)
    trained_on = n - calibration - test
    if is_text:
        plan = text_preset(trained_on, survey_words(strings(found.rows, found.source)))
    else:
        plan = image_preset(trained_on, survey_images(found.rows, found.source.image), size, test_size=test)
    raw = plan | {
        "name": name_from(name or inside.resolve().stem),
        "description": f"Tells {', '.join(found.rows.labels)} from anything else; made by a quick start.",
        "in_distribution": {"train": _plain(found.source), "test_size": test, "calibration_size": calibration},
        "outliers": {"train": _plain(found.outliers) | {"part": [0, _TRAINED_ON]}, "duplicates": "remove"},
        "export": {"stage": "oe", "alpha": alpha},
    }
    held_out = _plain(found.outliers) | {"part": [_TRAINED_ON, 1]}
    raw["evaluation"] = {"ood": {"held-out-outliers": held_out, **plan["evaluation"]["ood"]}}
    for override in overrides:
        apply_override(raw, override)
    notes = [
        f"{n:,} examples of {len(counts)} classes: {trained_on:,} to train on, {calibration:,} to calibrate with, "
        f"{test:,} to test on; {len(found.outlier_rows.table):,} outliers, a fifth of them to test on"
    ]
    if alpha > DEFAULT_ALPHA:
        least = f"the least that {calibration} calibration examples can flag anything at"
        notes.append(f"alpha is {alpha:g}, {least}; {round(1 / DEFAULT_ALPHA) - 1} would do for {DEFAULT_ALPHA:g}")
    return QuickStart(parse_recipe(raw, "the quick start's recipe"), data_dir, tuple(notes))


def _require_apart(inside: Path, outliers: Path) -> None:
    for path in (inside, outliers):
        if not path.exists():
            raise DataError(str(path), "does not exist", _FOLDERS)
    one, other = inside.resolve(), outliers.resolve()
    if one == other:
        raise DataError(str(outliers), "is the in-distribution data itself", "Outliers show none of your classes")
    if other.is_relative_to(one) or one.is_relative_to(other):
        reason = f"and {inside} lie inside one another, so that outliers would be a class or classes outliers"
        raise DataError(str(outliers), reason, "Put them beside each other")


def _holds_texts(path: Path) -> bool:
    if path.is_dir():
        return False
    columns = columns_of(path)
    if "image" not in columns and "text" not in columns:
        raise DataError(str(path), f"has no column image or text, but {', '.join(columns) or 'none'}", _FOLDERS)
    return "image" not in columns


def _read(inside: Path, outliers: Path, data_dir: Path, *, is_text: bool) -> _Found:
    locations = DataLocations(data_dir=data_dir)

    def rows(source: Source) -> Rows:
        return read_texts(source, locations) if is_text else read_rows(source, data_dir, source.image)

    source = guess_source(inside, data_dir)
    if source.label is None:
        raise DataError(str(inside), "has no classes", _FOLDERS)
    if inside.is_dir() and (empty := [name for name, images in class_folders(inside).items() if not images]):
        raise DataError(str(inside), f"has no image of the class {', '.join(empty)}", "Add some or remove the folder")
    others = guess_source(outliers, data_dir).model_copy(update={"label": None})
    found = _Found(source, rows(source), others, rows(others))
    if len(found.outlier_rows.table) < _FEWEST_OUTLIERS:
        few = len(found.outlier_rows.table)
        raise DataError(str(outliers), f"holds {few} outliers", f"Give {_FEWEST_OUTLIERS} or, better, thousands")
    return found


def _require_classes(found: _Found, inside: Path) -> Counter[str]:
    """The number of examples by class."""
    targets = [] if found.rows.y is None else found.rows.y.tolist()
    counts = Counter(dict.fromkeys(found.rows.labels, 0))
    counts.update(found.rows.labels[target] for target in targets)
    if len(counts) < 2:
        raise DataError(str(inside), f"has {len(counts)} class ({', '.join(counts)})", "A classifier needs two or more")
    if few := {label: count for label, count in counts.items() if count < _FEWEST_OF_A_CLASS}:
        words = ", ".join(f"{label} {count}" for label, count in few.items())
        reason = f"has too few examples of some classes ({words})"
        raise DataError(str(inside), reason, f"Give {_FEWEST_OF_A_CLASS} or more of each, or remove the class")
    if (n := len(targets)) < _FEWEST:
        reason = f"holds {n} examples, too few to train on, calibrate with and test on"
        raise DataError(str(inside), reason, f"Give {_FEWEST} or more")
    return counts


def _plain(source: Source) -> dict[str, Any]:
    return source.model_dump(mode="json", exclude_defaults=True)
