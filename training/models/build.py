"""Builds the model of a recipe, and the exported model with its scores."""

from collections.abc import Sequence

from torch import nn

from training.architectures import ARCHITECTURES, DENSITY_ARCHITECTURES, TEXT_ARCHITECTURES
from training.architectures.linear_probe import LinearProbe
from training.backbones import FineTunedNetwork, ImageFeatures, TextFeatures
from training.models.classifier import Classifier, FeatureClassifier, ImageClassifier, Mirrored, TextClassifier
from training.models.combination import Combination
from training.models.density import Density
from training.models.feature_statistics import Statistics
from training.models.language_model import LanguageModel, build_language_model
from training.models.likelihood_heads import ScoredDensity, ScoredLanguageModel
from training.models.model import Model
from training.models.score_heads import ScoredClassifier, ScoredModel
from training.recipe import BackboneConfig, Recipe, TextConfig, build_component


def build_model(
    recipe: Recipe,
    num_classes: int,
    vocabulary_size: int | None = None,
    feature_size: int | None = None,
    backbone: ImageFeatures | TextFeatures | None = None,
) -> Model:
    """The recipe's model, freshly initialised from torch's generator.

    Args:
        recipe: Names the task and the architecture.
        num_classes: The number of classes of a classifier; other tasks ignore it.
        vocabulary_size: The largest token id plus 1, for models of texts.
        feature_size: The number of features of the frozen backbone, for recipes with one.
        backbone: The fine-tuned backbone, for recipes with one.
    """
    config, architecture = recipe.input, recipe.architecture
    outputs = num_classes + recipe.confidence_branch
    if recipe.fine_tuned is not None:
        if backbone is None:
            raise ValueError("a fine-tuned network needs its backbone")
        return _classifier(recipe, FineTunedNetwork(backbone, _probe(recipe.fine_tuned, outputs, backbone.size)))
    if recipe.backbone is not None:
        if feature_size is None:
            raise ValueError("a classifier of features needs their number")
        probe = _probe(recipe.backbone, outputs, feature_size)
        return FeatureClassifier(probe, confidence_branch=recipe.confidence_branch)
    if isinstance(config, TextConfig):
        if vocabulary_size is None:
            raise ValueError("a model of texts needs the size of its vocabulary")
        if recipe.task == "language-model":
            likelihood = recipe.likelihood
            window, count_end = likelihood.window, likelihood.count_end
            return build_language_model(architecture, vocabulary_size, window=window, count_end=count_end)
        network = build_component(
            "architecture",
            architecture,
            TEXT_ARCHITECTURES,
            num_classes=outputs,
            vocabulary_size=vocabulary_size,
            max_tokens=config.max_tokens,
        )
        return _classifier(recipe, network)
    if recipe.task == "density":
        return Density(build_component("architecture", architecture, DENSITY_ARCHITECTURES, channels=config.channels))
    network = build_component(
        "architecture", architecture, ARCHITECTURES, num_classes=outputs, channels=config.channels
    )
    return _classifier(recipe, network)


def _probe(config: BackboneConfig, outputs: int, feature_size: int) -> LinearProbe:
    return LinearProbe(outputs, feature_size, config.hidden, split_norm=config.split_norm)


def _classifier(recipe: Recipe, network: nn.Module) -> Classifier:
    """The classifier of the recipe's kind of input that passes it to `network`."""
    if isinstance(recipe.input, TextConfig):
        return TextClassifier(network, confidence_branch=recipe.confidence_branch)
    return ImageClassifier(network, recipe.input, confidence_branch=recipe.confidence_branch)


def scored_model(
    recipe: Recipe,
    model: Model,
    statistics: Statistics | None = None,
    combination: Combination | None = None,
    *,
    neighbours: bool = False,
    scores: Sequence[str] | None = None,
) -> ScoredModel:
    """`model` with the scores that the recipe exports; RecipeError if the model cannot compute one of them.

    Args:
        recipe: Names the scores.
        model: A model of the recipe's task.
        statistics: Statistics of training features, for a classifier's scores that need them.
        combination: The scores that the score `combined` of a classifier combines.
        scores: Other scores than the recipe's.
        neighbours: Whether a classifier with such statistics computes the nearest training examples.
    """
    scores = recipe.export.scores if scores is None else scores
    if isinstance(model, Density):
        per = recipe.likelihood.per
        return ScoredDensity(model, scores, per)
    if isinstance(model, LanguageModel):
        assert isinstance(recipe.input, TextConfig), "recipe validation requires text input for language models"
        return ScoredLanguageModel(model, scores, recipe.input.unit)
    assert isinstance(model, Classifier), "every other model is a classifier"
    classifier = Mirrored(model) if recipe.export.mirror else model
    return ScoredClassifier(classifier, scores, statistics, combination, neighbours=neighbours)
