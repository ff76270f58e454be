"""The score table: what each score's value means and which way is anomalous.

A graph outputs a score's own *value*, as its paper defines it. Thresholds and p-values are on its *anomaly*
orientation, `offset + sign * value`, where larger is more anomalous for every score.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.errors import UnknownScore


@dataclass(frozen=True, slots=True)
class Score:
    """One row of the score table.

    Attributes:
        name: the key in manifests, requests and metrics.
        title: for people.
        unit: of the value.
        offset: see `anomaly`.
        sign: +1 where a larger value is more anomalous, -1 where it is less.
        source: the paper that defines the score.
    """

    name: str
    title: str
    unit: str
    offset: float
    sign: int
    source: str

    def anomaly(self, value: ArrayLike) -> NDArray[np.float64]:
        """The anomaly orientation of `value`, of the same shape: `offset + sign * value`, larger is more anomalous."""
        return np.asarray(self.offset + self.sign * np.asarray(value, dtype=np.float64))

    def anomaly_of(self, value: float) -> float:
        """`anomaly` of a single number."""
        return self.offset + self.sign * value

    def value(self, anomaly: ArrayLike) -> NDArray[np.float64]:
        """The score's own value for `anomaly`, of the same shape: the inverse of `anomaly`."""
        return np.asarray(self.sign * (np.asarray(anomaly, dtype=np.float64) - self.offset))


_OUTLIER_EXPOSURE = "Hendrycks, Mazeika & Dietterich 2019, Deep Anomaly Detection with Outlier Exposure"

_TABLE = (
    Score(
        "msp",
        "Maximum softmax probability",
        "probability",
        1.0,
        -1,
        "Hendrycks & Gimpel 2017, A Baseline for Detecting Misclassified and Out-of-Distribution Examples",
    ),
    Score(
        "max_logit",
        "Maximum logit",
        "logit",
        0.0,
        -1,
        "Hendrycks et al. 2022, Scaling Out-of-Distribution Detection for Real-World Settings",
    ),
    Score(
        "energy",
        "Energy, -logsumexp of the logits",
        "nats",
        0.0,
        +1,
        "Liu et al. 2020, Energy-based Out-of-distribution Detection",
    ),
    Score("entropy", "Entropy of the softmax", "nats", 0.0, +1, "Shannon 1948, A Mathematical Theory of Communication"),
    Score(
        "kl_uniform",
        "Cross entropy of the uniform distribution with the softmax, H(U; f(x))",
        "nats",
        0.0,
        -1,
        f"{_OUTLIER_EXPOSURE}, the training term on outliers",
    ),
    Score(
        "confidence",
        "Learned confidence b(x)",
        "probability",
        1.0,
        -1,
        "DeVries & Taylor 2018, Learning Confidence for Out-of-Distribution Detection",
    ),
    Score(
        "bpp",
        "Bits per pixel",
        "bits",
        0.0,
        +1,
        f"Salimans et al. 2017, PixelCNN++; {_OUTLIER_EXPOSURE}",
    ),
    Score("bpc", "Bits per character", "bits", 0.0, +1, _OUTLIER_EXPOSURE),
    Score("bpw", "Bits per word", "bits", 0.0, +1, _OUTLIER_EXPOSURE),
)

SCORES: Mapping[str, Score] = MappingProxyType({score.name: score for score in _TABLE})
"""Every score that a bundle can offer, by name."""


def get_score(name: str) -> Score:
    """The score called `name`.

    Raises:
        UnknownScore: naming the scores that there are.
    """
    try:
        return SCORES[name]
    except KeyError:
        raise UnknownScore(f"unknown score {name!r}; the scores are {', '.join(SCORES)}") from None
