"""Features of a classifier: the input of its last linear layer."""

from typing import Any

from torch import Tensor, nn

from training.errors import RecipeError
from training.models.classifier import FeatureClassifier, Mirrored, Prediction
from training.models.model import Model


def predict_with_features(classifier: Model, inputs: tuple[Tensor, ...]) -> Prediction:
    """The prediction of `classifier` with its features `[N, D]`; those of a backbone if it has one.

    The features of a classifier that averages an image and its mirror image are averaged, too.

    Raises:
        RecipeError: if the network has no linear layer with one output per logit.
    """
    if isinstance(classifier, FeatureClassifier):
        of_features: Prediction = classifier(*inputs)
        return of_features
    recorded: list[Tensor] = []

    def record(_layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        recorded.append(arguments[0])

    hook = _last_linear(classifier).register_forward_pre_hook(record)
    try:
        prediction: Prediction = classifier(*inputs)
    finally:
        hook.remove()
    (features,) = recorded
    if isinstance(classifier, Mirrored):
        features = features.reshape(2, -1, features.shape[-1]).mean(dim=0)
    return prediction._replace(features=features)


def _last_linear(classifier: nn.Module) -> nn.Linear:
    layers = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise RecipeError("export.scores", "the network has no linear layer to take features from", "Choose others")
    return layers[-1]
