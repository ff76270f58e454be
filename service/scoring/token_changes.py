"""Token changes: how much each token of a text raises the anomaly of a score, by scoring the text without the token."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bundle import SCORES, TextEncoder
from service.errors import InputError
from service.inference.outcomes import Outcome, Row
from service.inputs.modality import Array, Prepared, arrays_of
from service.scoring.scored_input import Result, ScoredInput


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """The texts of a request with one token removed, one text for each token.

    Attributes:
        texts: The texts without one token, int64 `[L - 1]`.
    """

    texts: Sequence[Array]
    _positions: Sequence[Sequence[int]]
    _encoder: TextEncoder

    @classmethod
    def of(cls, prepared: Sequence[Prepared], encoder: TextEncoder, most: int) -> "LeaveOneOut":
        """The texts without one token each.

        Special tokens are not removed. Neither is the only token of a text, because an empty text has no scores.

        Args:
            prepared: The inputs of the request.
            encoder: The model's tokenizer.
            most: The largest number of texts to make. Each text of the request has an equal share of them, for its
                first tokens.
        """
        texts = arrays_of(prepared)
        share = most // len(texts) if texts else 0
        positions = []
        for ids in texts:
            words = [position for position, id_ in enumerate(ids.tolist()) if id_ not in encoder.special_ids]
            positions.append(words[:share] if len(words) > 1 else [])
        without = [np.delete(ids, position) for ids, its in zip(texts, positions, strict=True) for position in its]
        return cls(without, positions, encoder)

    def explain(
        self,
        results: Sequence[Result],
        prepared: Sequence[Prepared],
        outcomes: Sequence[Outcome],
        score: str,
    ) -> list[Result]:
        """The `results` with explanations.

        Args:
            results: The results of the request's inputs.
            prepared: The inputs of the request.
            outcomes: The outcomes of `texts`.
            score: The score that is explained.
        """
        anomalies = (_anomaly(outcome, score) for outcome in outcomes)
        texts = zip(arrays_of(prepared), self._positions, strict=True)
        explained: list[Result] = []
        for item, result in zip(prepared, results, strict=True):
            explained.append(result)
            if isinstance(item, InputError):
                continue
            ids, positions = next(texts)
            without = {position: next(anomalies) for position in positions}
            if isinstance(result, ScoredInput):
                tokens = list(_tokens(ids, without, self._encoder, result.scores[score].anomaly))
                explanation = {"kind": "token_changes", "score": score, "tokens": tokens}
                explained[-1] = replace(result, explanation=explanation)
        return explained


def _anomaly(outcome: Outcome, score: str) -> float | None:
    if not isinstance(outcome, Row):
        return None
    anomaly = SCORES[score].anomaly_of(float(outcome.outputs[score][outcome.index]))
    return anomaly if math.isfinite(anomaly) else None


def _tokens(
    ids: Array, anomalies: dict[int, float | None], encoder: TextEncoder, anomaly: float
) -> Iterator[dict[str, Any]]:
    """The tokens of a text and the change of each; `anomalies` are those of the text without a token, by position."""
    for position, (id_, token) in enumerate(zip(ids.tolist(), encoder.tokens(ids), strict=True)):
        if id_ not in encoder.special_ids:
            without = anomalies.get(position)
            yield {"token": token, "change": None if without is None else anomaly - without}
