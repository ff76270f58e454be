"""The options of the command `wrap`, and the check that they fit together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle import COMBINED, FEATURE_SCORES, LOGIT_SCORES
from training.errors import DataError, RecipeError
from training.recipe import Source
from training.wrapping.image_adapter import ImageOptions


@dataclass(frozen=True)
class WrapOptions:
    """The options of the command `wrap`, whose help explains each. Paths of sources are relative to `data_dir`."""

    model: Path
    logits: str | None
    calibration: Source
    name: str
    data_dir: Path
    models: Path = Path("models")
    version: int = 1
    description: str = ""
    image: ImageOptions = field(default_factory=ImageOptions)
    tokenizer: Path | None = None
    max_tokens: int | None = None
    labels: Sequence[str] | None = None
    fit: Source | None = None
    features: str | None = None
    neighbours: bool = True
    combine: tuple[str, ...] = ()
    test: Source | None = None
    ood: Mapping[str, Source] = field(default_factory=dict)
    validation: Mapping[str, Source] = field(default_factory=dict)
    alpha: float | None = None
    default_score: str | None = None
    overwrite: bool = False
    skip_broken: bool = False


def check_options(options: WrapOptions) -> None:
    """Check what can be checked without the classifier.

    Raises:
        RecipeError: if a score is unknown, or needs training data that are not given.
        DataError: if an option needs another one.
    """
    known = [*LOGIT_SCORES, *(() if options.fit is None else FEATURE_SCORES)]
    if options.combine:
        _require_known("--combine", options.combine, known)
        if len(set(options.combine)) != 2:
            reason = f"names {len(set(options.combine))} different scores"
            raise RecipeError("--combine", reason, "Name two: --combine mahalanobis+msp")
        known.append(COMBINED.name)
    if options.default_score is not None:
        _require_known("--default-score", [options.default_score], known)
    if options.features is not None and options.fit is None:
        raise DataError("--features", "has no training data to compute statistics of", "Give labelled data: --fit")
    if twice := sorted(options.ood.keys() & options.validation.keys()):
        raise DataError("--validation", f"has the name {twice[0]} of a test set", "Give it another name")
    for option, sets in (("--ood", options.ood), ("--validation", options.validation)):
        if sets and options.test is None:
            raise DataError(option, "needs in-distribution inputs to be compared with", "Give a labelled set: --test")


def _require_known(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name in FEATURE_SCORES and name not in known:
            raise RecipeError(option, f"{name} needs labelled training data", "Give them: --fit")
        if name not in known:
            raise RecipeError(option, f"'{name}' is unknown", f"Known: {', '.join(known)}")
