"""Class names of a wrapped classifier, and the classes of labelled data in the classifier's order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data import Examples
from training.errors import DataError


def class_names(option: Sequence[str] | None, num_classes: int, *labelled: Examples | None) -> tuple[str, ...]:
    """The names in `option`, or those of the first of `labelled` that has names, or `class 0`, `class 1`, ...

    Raises:
        DataError: if the number of names is not `num_classes`.
    """
    names, origin = option, "--labels"
    if names is None:
        named = next((data for data in labelled if data is not None and data.labels and not _has_numbers(data)), None)
        if named is None:
            return tuple(f"class {i}" for i in range(num_classes))
        names, origin = named.labels, named.source
    if len(names) != num_classes:
        reason = f"names {len(names)} classes, the logits have {num_classes}"
        raise DataError(origin, reason, "Give every class's name in the model's order: --labels a,b,c or a file")
    return tuple(names)


def targets_among(examples: Examples, names: Sequence[str]) -> NDArray[np.int64]:
    """The classes `[N]` of `examples` as indices into `names`: by name, or by number if the data have numbers.

    Raises:
        DataError: if the data have no labels or other ones.
    """
    targets = examples.targets()
    if set(examples.labels) <= set(names):
        index = [names.index(label) for label in examples.labels]
    elif _has_numbers(examples) and max(map(int, examples.labels)) < len(names):
        index = [int(label) for label in examples.labels]
    else:
        unknown = [label for label in examples.labels if label not in names]
        reason = f"its labels {', '.join(unknown[:5])} are none of the model's ({', '.join(names[:5])}, ...)"
        raise DataError(examples.source, reason, "Give the model's class names as the data spells them: --labels")
    return np.asarray(index, dtype=np.int64)[targets]


def _has_numbers(examples: Examples) -> bool:
    return all(label.isdecimal() for label in examples.labels)
