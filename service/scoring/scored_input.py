"""One scored input: its scores, its prediction and its flag."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle import TokenCount
from service.errors import InputError
from service.inputs.modality import Array


@dataclass(frozen=True, slots=True)
class ScoreEntry:
    """One score of one input.

    `anomaly` is `value` oriented so that larger is more anomalous. `threshold` is None if no input can be flagged.
    """

    value: float
    anomaly: float
    threshold: float | None
    p_value: float
    flagged: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """The class that a classifier predicts for an input, and its probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class ScoredInput:
    """The scores, the prediction and the flag of one input.

    Attributes:
        flagged: The flag by the first of `scores`.
        p_value: The p-value of the first of `scores`.
        prediction: The predicted class; None for models without labels.
        scores: The scores by name, in the order of the request.
        explanation: The explanation; None unless the request asked for it and the model has one.
        tokens: The token count of a text; None for images.
        model_outputs: The wrapped classifier's own outputs that the request asked for.
        neighbours: The nearest training examples; None unless the request asked for an explanation.
    """

    flagged: bool
    p_value: float
    prediction: Prediction | None
    scores: Mapping[str, ScoreEntry]
    explanation: Mapping[str, Any] | None = None
    tokens: TokenCount | None = None
    model_outputs: Mapping[str, Array] | None = None
    neighbours: Sequence[Mapping[str, Any]] | None = None

    @property
    def truncated(self) -> bool:
        """Whether the model read the input only in part."""
        return self.tokens is not None and self.tokens.truncated


Result = ScoredInput | InputError
"""The result of one input: its scores, or the error that prevents them."""
