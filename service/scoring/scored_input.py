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

    `anomaly` is `value` oriented so that larger is more anomalous. `threshold` is None where nothing can be flagged.
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
    """The scores of one input, by name, in the order of the request; `flagged` and `p_value` are those of the first.

    `prediction` is None for models without labels, `explanation` unless the request asked for it. `tokens` counts the
    tokens of a text; it is None for images. `model_outputs` are the wrapped classifier's own outputs that the request
    asked for. `neighbours` are the nearest training examples, if the request asked for an explanation.
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
