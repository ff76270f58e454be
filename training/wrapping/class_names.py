"""Class names of a wrapped classifier, and the classes of labelled data in the classifier's order."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from training.data import Examples
from training.errors import DataError


def class_names(
    option: Sequence[str] | None,
    stored: Sequence[str],
    num_classes: int,
    labelled: Sequence[Examples],
    announce: Callable[[str], None],
) -> tuple[str, ...]:
    """The class names of a classifier.

    Args:
        option: the names that the user gave; None for the first of the following that fit.
        stored: the names in the files next to the graph.
        num_classes: the number of classes, K.
        labelled: data sets, whose classes may have names. Without any names the classes are `class 0`, `class 1`, ...
        announce: gets a line about names that do not fit.

    Raises:
        DataError: if the number of names in `option` is not K.
    """
    if option is not None:
        if len(option) != num_classes:
            reason = f"names {len(option)} classes, the logits have {num_classes}"
            raise DataError("--labels", reason, "Give each class's name in the model's order: --labels a,b,c or a file")
        return tuple(option)
    named = [("the files next to the graph", tuple(stored))] if stored else []
    named += [(data.source, data.labels) for data in labelled if data.labels and not _has_numbers(data)]
    for origin, names in named:
        if len(names) == num_classes:
            return names
        announce(f"labels: {origin} has {len(names)} class names, the model {num_classes} classes; --labels names them")
    return tuple(f"class {i}" for i in range(num_classes))


def targets_among(examples: Examples, names: Sequence[str], *, by_order: bool = False) -> NDArray[np.int64]:
    """The classes `[N]` of `examples` as indices into `names`: by name, or by number if the data have numbers.

    Names are compared without case, with spaces for underscores and hyphens; a name may be one of several, separated
    by commas.

    Args:
        examples: the labelled data.
        names: the class names of the model.
        by_order: whether other names stand for the model's in alphabetical order (numbers in ascending order), if there
            are as many.

    Raises:
        DataError: if the data have no labels or other ones.
    """
    targets = examples.targets()
    known = _positions(names)
    found = [known.get(label, known.get(_normalised(label))) for label in examples.labels]
    index = [position for position in found if position is not None]
    if len(index) < len(found):
        if _has_numbers(examples) and max(map(int, examples.labels)) < len(names):
            index = [int(label) for label in examples.labels]
        elif by_order and not index and len(found) == len(names):
            # The number 10 comes after 9, not after 1.
            ordered = sorted(examples.labels, key=int) if _has_numbers(examples) else examples.labels
            index = [ordered.index(label) for label in examples.labels]
        else:
            unknown = [label for label, position in zip(examples.labels, found, strict=True) if position is None]
            reason = f"its labels {', '.join(unknown[:5])} are none of the model's ({', '.join(names[:5])}, ...)"
            raise DataError(examples.source, reason, "Give the model's class names as the data spells them: --labels")
    return np.asarray(index, dtype=np.int64)[targets]


def _positions(names: Sequence[str]) -> Mapping[str, int]:
    """The position of each name, exact names before normalised ones, and those before synonyms."""
    positions = {name: i for i, name in reversed(list(enumerate(names)))}
    for i, name in enumerate(names):
        positions.setdefault(_normalised(name), i)
    for i, name in enumerate(names):
        for synonym in name.split(","):
            positions.setdefault(_normalised(synonym), i)
    return positions


def _normalised(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _has_numbers(examples: Examples) -> bool:
    return all(label.isdecimal() for label in examples.labels)
