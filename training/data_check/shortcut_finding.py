"""Findings on single features that tell outliers from in-distribution data."""

from training.data_check.checked_set import CheckedSet
from training.data_check.finding import Finding
from training.data_check.shortcut_features import image_features, separations, text_features
from training.evaluation.shortcuts import REMEDIES
from training.recipe import TextConfig


def shortcut_findings(in_dist: CheckedSet, outliers: CheckedSet) -> list[Finding]:
    """One finding for each feature by which the sets can be told apart."""
    if in_dist.images is None:
        features = text_features(in_dist.rows.texts, outliers.rows.texts, TextConfig())
    else:
        features = image_features(in_dist.rows), image_features(outliers.rows)
    return [
        Finding(
            check="shortcuts",
            severity="warning",
            count=1,
            message=f"{found.feature} alone tells the outliers from {in_dist.name} (AUROC {found.auroc:.1f})",
            remedy=f"A detector may learn it instead of the content. {REMEDIES[found.feature]}",
        )
        for found in separations(*features)
        if found.is_shortcut
    ]
