"""Class names: what the classifier's outputs are called, and which of them a labelled data set means."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data import Examples
from training.errors import DataError


def class_names(given: Sequence[str] | None, num_classes: int, *labelled: Examples | None) -> tuple[str, ...]:
    """The names `given`, else those of the first labelled data set that has names, else `class 0`, `class 1`, ...

    Raises DataError unless there are `num_classes`.
    """
    named = next((each for each in labelled if each is not None and each.labels and not _numbered(each)), None)
    names = tuple(given) if given is not None else named.labels if named is not None else None
    if names is None:
        return tuple(f"class {i}" for i in range(num_classes))
    if len(names) != num_classes:
        origin = "--labels" if given is not None or named is None else named.source
        reason = f"names {len(names)} classes, the logits have {num_classes}"
        raise DataError(origin, reason, "Give every class's name in the model's order: --labels a,b,c or a file")
    return names


def targets_among(examples: Examples, names: Sequence[str]) -> NDArray[np.int64]:
    """The classes `[N]` of `examples` as indices into `names`: by name, or by number where the data has numbers.

    Raises DataError for unlabelled data and for labels that are none of these.
    """
    targets = examples.targets()
    if set(examples.labels) <= set(names):
        index = [names.index(label) for label in examples.labels]
    elif _numbered(examples) and max(map(int, examples.labels)) < len(names):
        index = [int(label) for label in examples.labels]
    else:
        unknown = [label for label in examples.labels if label not in names]
        reason = f"its labels {', '.join(unknown[:5])} are none of the model's ({', '.join(names[:5])}, ...)"
        raise DataError(examples.source, reason, "Give the model's class names as the data spells them: --labels")
    return np.asarray(index, dtype=np.int64)[targets]


def _numbered(examples: Examples) -> bool:
    return all(label.isdecimal() for label in examples.labels)
