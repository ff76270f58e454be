"""Training objectives, one file each: losses of an in-distribution batch and, in most, a batch of outliers.

Imports models, data and below.
"""

from collections.abc import Callable, Mapping

from training.objectives.confidence import Confidence, ConfidenceOutlierExposure
from training.objectives.cross_entropy import CrossEntropy
from training.objectives.energy_bounded import EnergyBounded, energy_bounded_loss
from training.objectives.joint_confidence import JointConfidence
from training.objectives.language_model import (
    LanguageModelOutlierExposure,
    TextMaximumLikelihood,
    language_model_outlier_exposure_loss,
    token_cross_entropy,
    uniform_token_cross_entropy,
)
from training.objectives.likelihood_margin import LikelihoodMargin, likelihood_margin_loss
from training.objectives.logit_norm import LogitNorm, logit_norm_loss
from training.objectives.maximum_likelihood import MaximumLikelihood, maximum_likelihood_loss
from training.objectives.mix_oe import MixOE
from training.objectives.objective import Forward, Loss, Objective
from training.objectives.outlier_exposure import OutlierExposure, outlier_exposure_loss
from training.objectives.text_likelihood_margin import TextLikelihoodMargin
from training.recipe import Task

OBJECTIVES: Mapping[Task, Mapping[str, Callable[..., Objective]]] = {
    "classification": {
        "cross_entropy": CrossEntropy,
        "logit_norm": LogitNorm,
        "outlier_exposure": OutlierExposure,
        "energy_bounded": EnergyBounded,
        "mix_oe": MixOE,
        "joint_confidence": JointConfidence,
        "confidence": Confidence,
        "confidence_outlier_exposure": ConfidenceOutlierExposure,
    },
    "density": {
        "maximum_likelihood": MaximumLikelihood,
        "likelihood_margin": LikelihoodMargin,
    },
    "language-model": {
        "maximum_likelihood": TextMaximumLikelihood,
        "outlier_exposure": LanguageModelOutlierExposure,
        "likelihood_margin": TextLikelihoodMargin,
    },
}
"""A recipe's task -> the objective's name -> its class."""

__all__ = [
    "OBJECTIVES",
    "Confidence",
    "ConfidenceOutlierExposure",
    "CrossEntropy",
    "EnergyBounded",
    "Forward",
    "JointConfidence",
    "LanguageModelOutlierExposure",
    "LikelihoodMargin",
    "LogitNorm",
    "Loss",
    "MaximumLikelihood",
    "MixOE",
    "Objective",
    "OutlierExposure",
    "TextLikelihoodMargin",
    "TextMaximumLikelihood",
    "energy_bounded_loss",
    "language_model_outlier_exposure_loss",
    "likelihood_margin_loss",
    "logit_norm_loss",
    "maximum_likelihood_loss",
    "outlier_exposure_loss",
    "token_cross_entropy",
    "uniform_token_cross_entropy",
]
