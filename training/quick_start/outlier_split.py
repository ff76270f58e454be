"""The split of a user's outliers: a part to train on, a part to choose the score by, and a part to test on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from training.data.labels import class_counts
from training.data.sources import Rows
from training.errors import DataError
from training.quick_start.held_out import held_out_groups
from training.recipe import Source

_TRAIN_SHARE = 0.8
"""The share of outliers without sub-folders or labels that is trained on; the others are a test set."""


@dataclass(frozen=True)
class OutlierSplit:
    """Disjoint selections of the rows of a source of outliers.

    Attributes:
        train: The outliers to train on.
        validation: Sub-folders or labels to choose the score by; None if too few remain or no choice is needed.
        test: The outliers to test on.
        held_out: The sub-folders or labels of `test`; none if it is a random part.
    """

    train: Source
    validation: Source | None
    test: Source
    held_out: tuple[str, ...]


def split_outliers(labelled: Source, read: Callable[[Source], Rows], *, validate: bool) -> OutlierSplit:
    """Hold whole sub-folders or labels out, or a random part of outliers without them.

    Args:
        labelled: The outliers, with their labels if they have any.
        read: Reads the rows of a source.
        validate: Whether to hold further sub-folders or labels out for a choice between scores.
    """
    sizes = {} if labelled.label is None else _group_sizes(labelled, read)
    held_out = held_out_groups(sizes)
    if not held_out:
        outliers = labelled.model_copy(update={"label": None})
        train = outliers.model_copy(update={"part": (0.0, _TRAIN_SHARE)})
        return OutlierSplit(train, None, outliers.model_copy(update={"part": (_TRAIN_SHARE, 1.0)}), ())
    remaining = {name: size for name, size in sizes.items() if name not in held_out}
    validation = held_out_groups(remaining) if validate else ()
    trained = [name for name in remaining if name not in validation]

    def only(*names: str) -> Source:
        return labelled.model_copy(update={"only_labels": names})

    return OutlierSplit(only(*trained), only(*validation) if validation else None, only(*held_out), held_out)


def _group_sizes(source: Source, read: Callable[[Source], Rows]) -> Mapping[str, int]:
    """The number of outliers by sub-folder or label; empty if a row has none."""
    try:
        labelled = read(source)
    except DataError:
        return {}
    if labelled.y is None:
        return {}
    return class_counts(labelled.y, labelled.labels)
