"""The options of a request: alpha or thresholds, the scores, the deadline, and whether to explain."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bundle import ModelTensor
from service.errors import InvalidParameter
from service.scoring.explanations import Explanation

OPTION_NAMES = ("alpha", "threshold", "scores", "timeout_ms", "explain")


@dataclass(frozen=True, slots=True)
class Options:
    """The validated options of a request.

    Attributes:
        scores: The scores to compute; the first one decides the flag of an input.
        alpha: The false-flag rate; None takes the default of the model.
        thresholds: By score, the anomaly above which an input is flagged instead of by alpha.
        timeout_ms: The deadline, in milliseconds after the body is read.
        explain: Whether to explain the scores of each input.
        model_outputs: The names of the wrapped classifier's own outputs to return.
    """

    scores: tuple[str, ...]
    alpha: float | None
    thresholds: Mapping[str, float]
    timeout_ms: int
    explain: bool = False
    model_outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class OptionLimits:
    """The options that a model and the settings offer to requests.

    Attributes:
        scores: The scores of the model.
        default_score: The score of requests that name none.
        timeout_ms: The longest deadline, and the one of requests that name none.
        explanations: The kinds of explanations that the model has.
        model_outputs: The wrapped classifier's own outputs.
    """

    scores: tuple[str, ...]
    default_score: str
    timeout_ms: int
    explanations: tuple[Explanation, ...] = ()
    model_outputs: tuple[ModelTensor, ...] = ()

    @cached_property
    def default_options(self) -> Options:
        """The options of a request that chooses none."""
        return Options((self.default_score,), None, {}, self.timeout_ms)


def query_options(query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The options in a query, as text. Raises `InvalidParameter` for unknown and for repeated parameters."""
    options: dict[str, Any] = {}
    for name, value in query:
        # Unknown parameters are errors: a request with `alhpa=0.001` must not be scored at the default alpha.
        if name not in OPTION_NAMES:
            raise InvalidParameter(name, f"no such parameter; the parameters are {', '.join(OPTION_NAMES)}")
        if name in options:
            raise InvalidParameter(name, "given twice; give it once (several scores as `scores=msp,energy`)")
        options[name] = value
    return options


def parse_options(values: Mapping[str, Any], option_limits: OptionLimits) -> Options:
    """Validate the options of a request.

    Args:
        values: The options by name, as texts of a query or as JSON values.
        option_limits: The options that the model offers.

    Raises:
        InvalidParameter: An option is invalid; the problem names it.
    """
    scores = _scores(values.get("scores"), option_limits)
    alpha = values.get("alpha")
    timeout = values.get("timeout_ms")
    return Options(
        scores=scores,
        alpha=None if alpha is None else _alpha(alpha),
        thresholds=_thresholds(values.get("threshold"), scores),
        # A client can shorten the deadline of the service, not extend it.
        timeout_ms=option_limits.timeout_ms if timeout is None else min(_timeout(timeout), option_limits.timeout_ms),
        explain=_explain(values.get("explain"), option_limits),
    )


def _scores(value: Any, option_limits: OptionLimits) -> tuple[str, ...]:
    if value is None:
        return (option_limits.default_score,)
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InvalidParameter("scores", "give score names, for example `msp,energy`, or `all`")
    if names == ["all"]:
        return option_limits.scores
    for name in names:
        if name not in option_limits.scores:
            offered = ", ".join(option_limits.scores)
            raise InvalidParameter("scores", f"this model does not offer {name[:64]!r}; it offers {offered}")
    return tuple(dict.fromkeys(names))


def _alpha(value: Any) -> float:
    alpha = _number("alpha", value)
    if not 0 < alpha < 1:
        raise InvalidParameter("alpha", f"{alpha} is not a false-flag rate; give a number above 0 and below 1")
    return alpha


def _thresholds(value: Any, scores: Sequence[str]) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        if len(scores) > 1:
            raise InvalidParameter(
                "threshold",
                f'one number cannot fit {len(scores)} scores; give JSON `{{"threshold": {{score: number}}}}`',
            )
        return {scores[0]: _number("threshold", value)}
    for name in value:
        if name not in scores:
            raise InvalidParameter(
                "threshold", f"{str(name)[:64]!r} is not among the requested scores ({', '.join(scores)})"
            )
    return {name: _number(f"threshold.{name}", number) for name, number in value.items()}


def _timeout(value: Any) -> int:
    milliseconds = _number("timeout_ms", value)
    if milliseconds < 1 or milliseconds != int(milliseconds):
        raise InvalidParameter("timeout_ms", f"{value!r} is not a whole number of milliseconds of at least 1")
    return int(milliseconds)


_NOTHING_TO_EXPLAIN = (
    "this model has no explanations; models of likelihoods (bpp, bpc, bpw), classifiers of texts, classifiers of "
    "images that end in global pooling and a linear layer, and bundles with the score knn and its examples have"
)


def _explain(value: Any, option_limits: OptionLimits) -> bool:
    if value is None:
        return False
    explain = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
    if not isinstance(explain, bool):
        raise InvalidParameter("explain", f"{str(value)[:64]!r} is neither true nor false")
    if explain and not option_limits.explanations:
        raise InvalidParameter("explain", _NOTHING_TO_EXPLAIN)
    return explain


def _number(parameter: str, value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        raise InvalidParameter(parameter, f"{str(value)[:64]!r} is not a number") from None
    if not math.isfinite(number):
        raise InvalidParameter(parameter, f"{number} is not a finite number")
    return number
