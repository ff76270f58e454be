"""The options of `architecture: {name: pretrained, ...}`: a pretrained backbone, and the classifier of its features."""

from typing import Self

from pydantic import Field, ValidationError

from training.errors import RecipeError
from training.recipe.components import Component
from training.recipe.section import Section

PRETRAINED = "pretrained"
"""The name of the architecture."""


class BackboneConfig(Section):
    """A pretrained backbone: frozen, or fine-tuned.

    Attributes:
        backbone: A pretrained model: an ONNX file, the folder of a `transformers` model, or the name of one on the hub.
            A relative path starts at the data folder. The tokenizer of a model of texts is the `tokenizer.json` next
            to the file or in the folder, unless `input.tokenizer` names another.
        features: The tensor with the features of an ONNX file. By default the input of the last linear layer, or else
            the first output.
        hidden: The width of a hidden layer of the classifier; 0 for a linear classifier.
        split_norm: Whether the classifier reads the direction of the features and the logarithm of their norm, clamped
            to four standard deviations, instead of the features. It should if outliers have other norms than training
            examples: short texts have longer mean vectors.
        fine_tune: Whether the stages train the backbone, too, with their `backbone_learning_rate`. An ONNX file cannot
            be trained.
    """

    backbone: str
    features: str | None = None
    hidden: int = Field(default=0, ge=0)
    split_norm: bool = False
    fine_tune: bool = False

    @classmethod
    def of(cls, architecture: Component) -> Self | None:
        """The options of `architecture`; None if it is another one. RecipeError if an option is wrong."""
        if architecture.name != PRETRAINED:
            return None
        try:
            return cls.model_validate(architecture.options)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(("architecture", *map(str, problem["loc"])))
            raise RecipeError(key, problem["msg"], f"Options: {', '.join(cls.model_fields)}") from error
