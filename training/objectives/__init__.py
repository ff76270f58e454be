"""Training objectives, one file each: losses of an in-distribution batch and, for most, a batch of outliers."""

from collections.abc import Callable, Mapping

from training.objectives.confidence import Confidence, ConfidenceOutlierExposure
from training.objectives.cross_entropy import CrossEntropy
from training.objectives.energy_bounded import EnergyBounded, energy_bounded_loss
from training.objectives.joint_confidence import JointConfidence
from training.objectives.language_model import (
    language_model_outlier_exposure_loss,
    token_cross_entropy,
    uniform_token_cross_entropy,
)
from training.objectives.mix_oe import MixOE
from training.objectives.objective import Forward, Loss, Objective
from training.objectives.outlier_exposure import OutlierExposure, outlier_exposure_loss

OBJECTIVES: Mapping[str, Callable[..., Objective]] = {
    "cross_entropy": CrossEntropy,
    "outlier_exposure": OutlierExposure,
    "energy_bounded": EnergyBounded,
    "mix_oe": MixOE,
    "joint_confidence": JointConfidence,
    "confidence": Confidence,
    "confidence_outlier_exposure": ConfidenceOutlierExposure,
}

__all__ = [
    "OBJECTIVES",
    "Confidence",
    "ConfidenceOutlierExposure",
    "CrossEntropy",
    "EnergyBounded",
    "Forward",
    "JointConfidence",
    "Loss",
    "MixOE",
    "Objective",
    "OutlierExposure",
    "energy_bounded_loss",
    "language_model_outlier_exposure_loss",
    "outlier_exposure_loss",
    "token_cross_entropy",
    "uniform_token_cross_entropy",
]
