"""The choice of a bundle's default score on validation sets, never on test sets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bundle import SCORES
from training.evaluation.report import Report


class DefaultScore(NamedTuple):
    """The score that a bundle decides by, and the reason of the choice for its manifest."""

    name: str
    reason: str


def choose_default_score(report: Report, stage: str, scores: Sequence[str]) -> DefaultScore:
    """The score of `stage` with the highest mean AUROC over the report's validation sets.

    The first in the order of the score table wins a tie. Without validation sets the first of `scores` remains.

    Args:
        report: The figures of the stage.
        stage: The stage to export.
        scores: The scores to choose from, all of them measured in `report`.
    """
    if not report.validation:
        return DefaultScore(scores[0], "first of the recipe's scores: the recipe has no validation sets")
    aurocs = {
        score: float(np.mean([report.find(name, stage, score).auroc.mean for name in report.validation]))
        for score in SCORES
        if score in scores
    }
    best = max(aurocs, key=lambda score: aurocs[score])
    figures = ", ".join(f"{score} {auroc:.2f}" for score, auroc in sorted(aurocs.items(), key=lambda item: -item[1]))
    return DefaultScore(best, f"mean AUROC on the validation sets ({', '.join(report.validation)}): {figures}")
