"""Findings on the numbers of examples: too few to train on, or to calibrate with at an alpha.

n calibration examples can flag an input at alpha only if alpha >= 1 / (n + 1) (`bundle.false_flag_rate`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bundle.false_flag_rate import smallest_alpha
from training.data_check.finding import Finding
from training.scoring.calibration import attainable_alpha

MIN_EXAMPLES: Final = 70
"""The fewest in-distribution examples that `run` accepts without a recipe."""
MIN_PER_CLASS: Final = 5
"""The fewest examples of a class that `run` accepts without a recipe."""
MIN_OUTLIERS: Final = 10
"""The fewest outliers that `run` accepts without a recipe."""

_MAX_HELD_OUT = 5000
_LISTED = 20


@dataclass(frozen=True)
class SplitSizes:
    """The numbers of in-distribution examples of the splits of `run` without a recipe."""

    train: int
    calibration: int
    test: int


def split_sizes(n: int, test_size: int | None = None) -> SplitSizes:
    """The sizes of the splits of `n` in-distribution examples, besides `test_size` examples of another test set."""
    calibration = min(_MAX_HELD_OUT, max(round(0.2 * n), min(100, 3 * n // 10)))
    if test_size is not None:
        return SplitSizes(n - calibration, calibration, test_size)
    test = min(_MAX_HELD_OUT, round(0.15 * n))
    return SplitSizes(n - calibration - test, calibration, test)


def calibration_examples(alpha: float) -> int:
    """The fewest calibration examples that can flag an input at `alpha`."""
    n = max(1, math.floor(1 / alpha) - 2)
    while smallest_alpha(n) > alpha:
        n += 1
    return n


def training_size_findings(counts: Mapping[str, int]) -> list[Finding]:
    """Findings on sets that `run` refuses without a recipe: too few classes, or examples of a class or altogether.

    Args:
        counts: The number of in-distribution examples of each class.
    """
    findings = []
    n = sum(counts.values())
    if len(counts) < 2:
        message = f"the in-distribution data have {len(counts)} class ({', '.join(counts)})"
        findings.append(_error(len(counts), message, "A classifier needs two or more"))
    if few := {label: count for label, count in counts.items() if count < MIN_PER_CLASS}:
        message = f"{len(few):,} classes have fewer than {MIN_PER_CLASS} examples ({_listed(few)})"
        findings.append(_error(len(few), message, f"Give {MIN_PER_CLASS} or more of each, or remove the class"))
    if n < MIN_EXAMPLES:
        message = f"{n} examples are too few to train on, calibrate with and test on"
        findings.append(_error(n, message, f"Give {MIN_EXAMPLES} or more"))
    return findings


def calibration_size_findings(counts: Mapping[str, int], alpha: float) -> list[Finding]:
    """Findings on calibration sets and classes in them that are too small for any flag at `alpha`.

    Args:
        counts: The number of calibration examples of each class.
        alpha: The false-flag rate.
    """
    n, needed = sum(counts.values()), calibration_examples(alpha)
    if n < needed:
        message = f"{n:,} calibration examples cannot flag any input at alpha {alpha:g}, which takes {needed:,}"
        remedy = f"Give more examples, or calibrate for alpha {attainable_alpha(n):g} or more"
        return [Finding(check="calibration size", severity="warning", count=n, message=message, remedy=remedy)]
    few = {label: count for label, count in counts.items() if count < needed}
    if not few:
        return []
    smallest = min(few.values())
    message = (
        f"{len(few):,} of {len(counts):,} classes have fewer than {needed:,} calibration examples, too few to check "
        f"or calibrate the class alone at alpha {alpha:g} ({_listed(few)})"
    )
    remedy = (
        "The false-flag rate holds on average over all classes. Give more examples of these, or trust it for a single "
        f"class only at alpha {attainable_alpha(smallest):g} or more"
    )
    return [Finding(check="small classes", severity="warning", count=len(few), message=message, remedy=remedy)]


def outlier_size_finding(n: int) -> Finding | None:
    """The finding on outliers that are too few for `run` without a recipe."""
    if n >= MIN_OUTLIERS:
        return None
    return _error(n, f"{n} outliers are too few", f"Give {MIN_OUTLIERS} or, better, thousands")


def _error(count: int, message: str, remedy: str) -> Finding:
    return Finding(check="training size", severity="error", count=count, message=message, remedy=remedy)


def _listed(counts: Mapping[str, int]) -> str:
    """The names and numbers of the smallest classes."""
    smallest = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    more = f" and {len(smallest) - _LISTED:,} more" if len(smallest) > _LISTED else ""
    return ", ".join(f"{label} {count:,}" for label, count in smallest[:_LISTED]) + more
