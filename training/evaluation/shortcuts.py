"""The shortcut check: single features of the files that tell outliers from in-distribution data.

A detector that is trained on such data may learn the feature instead of the content.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict

SHORTCUT_AUROC: Final = 95.0
"""The AUROC in percent above which a single feature is reported as a shortcut."""

_SAME_FILES = "Store both sets in the same way, or take outliers from files like the in-distribution data"
REMEDIES: Final[Mapping[str, str]] = {
    "file size": _SAME_FILES,
    "image size": "Resize or crop both sets to the same size before training",
    "file format": _SAME_FILES,
    "JPEG quantisation": _SAME_FILES,
    "mean brightness": "Add outliers that are as bright or as dark as the in-distribution data",
    "text length": "Add outliers as long as the in-distribution texts, or cut both sets to similar lengths",
    "share of unknown tokens": "Add outliers that use the words of the in-distribution texts",
}
"""Each feature that is checked -> the remedy if it is a shortcut."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FeatureSeparation(_Part):
    """The AUROC, in percent and at least 50, of telling the outliers by one feature alone."""

    feature: str
    auroc: float

    @property
    def is_shortcut(self) -> bool:
        """Whether the feature alone separates the sets."""
        return self.auroc > SHORTCUT_AUROC

    def __str__(self) -> str:
        """The warning if the feature is a shortcut."""
        remedy = REMEDIES.get(self.feature, _SAME_FILES)
        return (
            f"shortcut: {self.feature} alone tells the outliers from the in-distribution data (AUROC {self.auroc:.1f})."
            f" The detector may learn it instead of the content. {remedy}"
        )


class ShortcutCheck(_Part):
    """The separation by every feature of two sets.

    Attributes:
        in_distribution: The path of the in-distribution data in the recipe.
        outliers: The path of the outliers in the recipe.
        features: The separation by each feature.
    """

    in_distribution: str
    outliers: str
    features: tuple[FeatureSeparation, ...]

    @property
    def warnings(self) -> list[str]:
        """One message for each feature that is a shortcut."""
        return [str(feature) for feature in self.features if feature.is_shortcut]
