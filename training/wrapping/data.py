"""The data of a wrapped classifier: read and checked before anything is computed from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bundle import COMBINED, FEATURE_SCORES, false_flag_rate
from training.data import (
    BrokenInputs,
    DataLocations,
    Examples,
    Progress,
    Reader,
    all_problems,
    announce_left_out,
    require_test_size,
)
from training.data.splits import split_standardisation
from training.errors import DataError
from training.models.feature_statistics import MAX_EXAMPLES
from training.scoring.calibration import DEFAULT_ALPHA, attainable_alpha
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.options import WrapOptions

_MIN_CALIBRATION = 20


@dataclass(frozen=True)
class WrapData:
    """The data sets; `fit` has no example that is (nearly) a copy of one in another set.

    Attributes:
        reader: the reader of all sets.
        held_out: the set of `--calibration`.
        calibration: those of its examples that calibrate.
        standardisation: the other ones, which standardise the scores that are combined; None without `--combine`.
        alpha: the default false-flag rate.
        fit: the training examples that statistics of features are computed from; None without `--fit`.
        test: the in-distribution test set; None without `--test`.
    """

    reader: Reader
    held_out: Examples
    calibration: Examples
    standardisation: Examples | None
    alpha: float
    fit: Examples | None
    test: Examples | None


def load_data(
    adapter: InputAdapter,
    options: WrapOptions,
    locations: DataLocations,
    announce: Callable[[str], None],
    progress: Progress,
) -> WrapData:
    """Read the data sets.

    Raises:
        BrokenInputs: if inputs cannot be read and are not to be left out; lists all of them.
        DataError: if there are too few examples, if the training examples have no classes or are all copies, or if test
            texts have no out-of-distribution set to be compared with.
    """
    # Images are compared with synthetic ones, too.
    if options.test is not None and adapter.spec.kind == "text" and not options.ood:
        remedy = "Give out-of-distribution texts: --ood NAME=PATH"
        raise DataError("--test", "has no out-of-distribution set to be compared with", remedy)
    reader = _checked_reader(adapter, options, locations, announce, progress)
    held_out = reader.load(options.calibration, name="calibration", progress=progress)
    calibration, standardisation = _split(held_out, options.combine, announce)
    alpha = _alpha(options.alpha, calibration, announce)
    test = None if options.test is None else reader.load(options.test, name="in-distribution test", progress=progress)
    if test is not None:
        require_test_size(len(test), test.source)
    fit = None
    if options.fit is None:
        names = " and ".join(FEATURE_SCORES)
        announce(f"scores of features: none, because {names} need labelled training data: --fit")
    else:
        fit = reader.load(options.fit, name="training", progress=progress)
        fit = _without_copies(fit, [held_out] if test is None else [held_out, test], reader, announce, progress)
    return WrapData(reader, held_out, calibration, standardisation, alpha, fit, test)


def _checked_reader(
    adapter: InputAdapter,
    options: WrapOptions,
    locations: DataLocations,
    announce: Callable[[str], None],
    progress: Progress,
) -> Reader:
    """A reader that has read every input of every set, and announces those that it leaves out.

    Raises:
        BrokenInputs: if inputs cannot be read and are not to be left out; lists all of them.
    """
    reader = adapter.reader(locations, skip_broken=options.skip_broken)
    sets = {
        "calibration": options.calibration,
        "training": options.fit,
        "in-distribution test": options.test,
        **options.ood,
        **options.validation,
    }
    loads = (
        partial(reader.load, source, name=name, progress=progress)
        for name, source in sets.items()
        if source is not None
    )
    if problems := all_problems(loads):
        raise BrokenInputs(problems)
    announce_left_out(reader.left_out, announce)
    return reader


def _without_copies(
    examples: Examples,
    held_out: Sequence[Examples],
    reader: Reader,
    announce: Callable[[str], None],
    progress: Progress,
) -> Examples:
    """The labelled training examples that are not (nearly) copies of `held_out` examples, at most `MAX_EXAMPLES`.

    A copy would make a calibration or test example look more typical than later inputs.
    """
    if examples.y is None:
        remedy = "Give one folder of images for each class, or name the column of classes: --label-column"
        raise DataError(examples.source, "has no labels", remedy)
    examples.require_classes()
    copies = [reader.overlap(split, examples, f"overlap with {split.name}", progress).rows for split in held_out]
    copied = np.unique(np.concatenate(copies))
    if len(copied) == len(examples):
        reason = "every example is (nearly) a copy of a calibration or test example"
        raise DataError(examples.source, reason, "Give the data that the classifier was trained on: --fit")
    if len(copied):
        announce(f"fit: {len(copied):,} examples are (nearly) copies of calibration or test examples and are left out")
        examples = examples.rows(np.setdiff1d(np.arange(len(examples)), copied))
        examples.require_classes()
    return examples.evenly_spaced(MAX_EXAMPLES)


def _split(
    held_out: Examples, combine: Sequence[str], announce: Callable[[str], None]
) -> tuple[Examples, Examples | None]:
    """The calibration examples, and those that standardise the scores that are combined: a random fifth of all."""
    if not combine:
        return held_out, None
    n = len(held_out)
    rest, drawn = split_standardisation(n)
    announce(
        f"{COMBINED.name}: {' + '.join(combine)}, standardised by {len(drawn):,} of the {n:,} calibration examples; "
        f"the other {len(rest):,} calibrate"
    )
    return held_out.rows(rest), held_out.rows(drawn, "standardisation")


def _alpha(option: float | None, calibration: Examples, announce: Callable[[str], None]) -> float:
    n, source = len(calibration), calibration.source
    if n < _MIN_CALIBRATION:
        raise DataError(source, f"holds {n} examples to calibrate with", f"Give {_MIN_CALIBRATION} or more")
    attainable = attainable_alpha(n)
    if option is not None and option * (n + 1) < 1:
        reason = f"{n} examples can flag nothing at alpha {option:g}"
        raise DataError(source, reason, f"Give more, or --alpha {attainable:g}")
    if option is None and attainable > DEFAULT_ALPHA:
        announce(f"alpha: {attainable:g}, the smallest at which {n} calibration examples can flag an input")
    alpha = attainable if option is None else option
    announce(str(false_flag_rate(n, alpha)))
    return alpha
