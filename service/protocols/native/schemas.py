"""The bodies of responses, for the OpenAPI document only: `routes` writes them without these models."""

from typing import Literal

from pydantic import BaseModel, Field


class ScoreAnswer(BaseModel):
    """One score of one input."""

    value: float = Field(description="The score as its paper defines it.")
    anomaly: float = Field(description="The score oriented so that larger is more anomalous.")
    threshold: float | None = Field(description="Flagged above this anomaly; null if nothing can be flagged.")
    p_value: float = Field(description="Split-conformal p-value.")
    flagged: bool


class Prediction(BaseModel):
    """The class that a classifier predicts."""

    label: str
    index: int
    probability: float


class InputErrorAnswer(BaseModel):
    """The error of one input."""

    type: str = Field(examples=["undecodable-image"])
    detail: str


class TokenBits(BaseModel):
    """One token of a text and the bits that it costs."""

    token: str
    bits: float


class PixelExplanation(BaseModel):
    """The bits of each pixel of an image, summed over its channels."""

    kind: Literal["pixels"]
    per: Literal["pixel", "channel"] = Field(description="The unit of the score `bpp`; the heat map is per pixel.")
    heat_map: str = Field(description="A PNG of the model's image size, in base64; black is 0 bits.")
    max_bits: float = Field(description="The bits of the brightest colour.")


class TokenExplanation(BaseModel):
    """The bits of each token of a text."""

    kind: Literal["tokens"]
    per: Literal["word", "character"]
    tokens: list[TokenBits] = Field(description="The tokens that the model reads, up to its limit.")
    end_bits: float | None = Field(description="The bits of the text's end; null if the model does not count it.")


class TokenChange(BaseModel):
    """One token of a text and its part in the anomaly of a score."""

    token: str
    change: float | None = Field(
        description="The anomaly of the text minus that of the text without the token; null if it is not computed."
    )


class TokenChangesExplanation(BaseModel):
    """How much each token of a text raises the anomaly of the first requested score."""

    kind: Literal["token_changes"]
    score: str
    tokens: list[TokenChange] = Field(description="The tokens that the model reads, without special tokens.")


class EvidenceExplanation(BaseModel):
    """The evidence of each position of an image for the predicted class, on the grid of the last feature maps."""

    kind: Literal["evidence"]
    values: list[list[float]] = Field(description="The evidence of each position; its sum plus `bias` is `logit`.")
    bias: float = Field(description="The part of the logit that no position has.")
    logit: float = Field(description="The logit of the predicted class.")
    heat_map: str = Field(description="A PNG of `values` in base64; red speaks for the class, blue against it.")
    max_evidence: float = Field(description="The distance from 0 of the strongest colours.")


class Neighbour(BaseModel):
    """A training example whose features are near to those of the input."""

    label: str = Field(description="The class of the example.")
    source: str = Field(description="The example's file name, or the number of its row.")
    distance: float = Field(description="The squared distance of normalised features, in 0..4, as in the score `knn`.")


class Result(BaseModel):
    """One scored input; `flagged` and `p_value` are those of the first requested score."""

    index: int
    id: str | None
    flagged: bool
    p_value: float
    prediction: Prediction | None
    scores: dict[str, ScoreAnswer]
    truncated: Literal[True] | None = Field(None, description="Present if the model read only the beginning of a text.")
    tokens_read: int | None = Field(None, description="The tokens that the model read; present if `truncated` is.")
    tokens_total: int | None = Field(None, description="The tokens of the text; present if `truncated` is.")
    tokens_total_exact: bool | None = Field(None, description="False if the text has at least `tokens_total` tokens.")
    explanation: PixelExplanation | TokenExplanation | EvidenceExplanation | TokenChangesExplanation | None = Field(
        None, description="Present if `explain` is true and the model has such an explanation."
    )
    neighbours: list[Neighbour] | None = Field(
        None,
        description="The nearest training examples; present if `explain` is true and the bundle has them.",
    )


class FailedResult(BaseModel):
    """One input that could not be scored; the other inputs of the request are."""

    index: int
    id: str | None
    error: InputErrorAnswer


class ScoreResponse(BaseModel):
    """The response to a score request."""

    model: str
    version: str
    results: list[Result | FailedResult]
    errors: int = Field(description="The number of results that are errors.")
    warnings: list[str] | None = Field(None, description="Present if an option cannot have its effect.")
