"""Building: a recipe's model, and the graph with its scores."""

from training.architectures import ARCHITECTURES, DENSITY_ARCHITECTURES, TEXT_ARCHITECTURES
from training.models.classifier import Classifier, ImageClassifier, Mirrored, TextClassifier
from training.models.density import Density
from training.models.language_model import LanguageModel, build_language_model
from training.models.likelihood_heads import ScoredDensity, ScoredLanguageModel
from training.models.model import Model
from training.models.score_heads import ScoredClassifier, ScoredModel
from training.recipe import Recipe, TextConfig, build_component


def build_model(recipe: Recipe, num_classes: int, vocabulary_size: int | None = None) -> Model:
    """The recipe's model, freshly initialised from torch's generator.

    `num_classes` are a classifier's; `vocabulary_size` is one more than the largest token id of a model of texts.
    """
    plan, chosen = recipe.input, recipe.architecture
    if isinstance(plan, TextConfig):
        if vocabulary_size is None:
            raise ValueError("a model of texts needs the size of its vocabulary")
        if recipe.task == "language-model":
            how = recipe.likelihood
            return build_language_model(chosen, vocabulary_size, window=how.window, count_end=how.count_end)
        network = build_component(
            "architecture",
            chosen,
            TEXT_ARCHITECTURES,
            num_classes=num_classes + recipe.confidence_branch,
            vocabulary_size=vocabulary_size,
            max_tokens=plan.max_tokens,
        )
        return TextClassifier(network, confidence_branch=recipe.confidence_branch)
    if recipe.task == "density":
        return Density(build_component("architecture", chosen, DENSITY_ARCHITECTURES, channels=plan.channels))
    outputs = num_classes + recipe.confidence_branch
    network = build_component("architecture", chosen, ARCHITECTURES, num_classes=outputs, channels=plan.channels)
    return ImageClassifier(network, plan, confidence_branch=recipe.confidence_branch)


def scored_model(recipe: Recipe, model: Model) -> ScoredModel:
    """`model` with the scores that the recipe exports; RecipeError when it cannot compute one."""
    scores = recipe.export.scores
    if isinstance(model, Density):
        per = recipe.likelihood.per
        return ScoredDensity(model, scores, per)
    if isinstance(model, LanguageModel):
        assert isinstance(recipe.input, TextConfig), "the recipe's validation ties language models to texts"
        return ScoredLanguageModel(model, scores, recipe.input.unit)
    assert isinstance(model, Classifier), "the third kind of model"
    return ScoredClassifier(Mirrored(model) if recipe.export.mirror else model, scores)
