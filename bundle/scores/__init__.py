"""The score table: every score that a bundle can offer, one file each. Imports nothing of the bundle but its errors.

A new score is a file and an entry in `SCORES`. Training and wrapping take the formula for their graphs from it, and the
service takes the meaning of the value.
"""

from collections.abc import Mapping
from types import MappingProxyType

from bundle.errors import UnknownScore
from bundle.scores.bpc import BPC
from bundle.scores.bpp import BPP
from bundle.scores.bpw import BPW
from bundle.scores.combined import COMBINED
from bundle.scores.confidence import CONFIDENCE
from bundle.scores.energy import ENERGY
from bundle.scores.entropy import ENTROPY
from bundle.scores.gen import GEN
from bundle.scores.kl_uniform import KL_UNIFORM
from bundle.scores.knn import KNN
from bundle.scores.mahalanobis import MAHALANOBIS
from bundle.scores.max_logit import MAX_LOGIT
from bundle.scores.msp import MSP
from bundle.scores.score import ModelOutput, Score

SCORES: Mapping[str, Score] = MappingProxyType(
    {
        score.name: score
        for score in (
            MSP,
            MAX_LOGIT,
            ENERGY,
            ENTROPY,
            KL_UNIFORM,
            GEN,
            CONFIDENCE,
            MAHALANOBIS,
            KNN,
            COMBINED,
            BPP,
            BPC,
            BPW,
        )
    }
)
"""Every score that a bundle can offer, by name."""

_CLASSIFIER_OUTPUTS: tuple[ModelOutput, ...] = ("logits",)

LOGIT_SCORES: tuple[str, ...] = tuple(
    name for name, score in SCORES.items() if score.computable_from(_CLASSIFIER_OUTPUTS)
)
"""The scores that the logits of any classifier give: a recipe exports them unless it names others, `wrap` always."""

FEATURE_SCORES: tuple[str, ...] = (MAHALANOBIS.name, KNN.name)
"""The scores that need a classifier's features and statistics of training features."""

__all__ = ["COMBINED", "FEATURE_SCORES", "LOGIT_SCORES", "SCORES", "ModelOutput", "Score", "get_score"]


def get_score(name: str) -> Score:
    """The score called `name`.

    Raises:
        UnknownScore: for any other name; the message lists the scores.
    """
    try:
        return SCORES[name]
    except KeyError:
        raise UnknownScore(f"unknown score {name!r}; the scores are {', '.join(SCORES)}") from None
