"""What a request may choose: alpha or thresholds, the scores, its deadline."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidParameter

OPTION_NAMES = ("alpha", "threshold", "scores", "timeout_ms", "explain")


@dataclass(frozen=True, slots=True)
class Options:
    """A request's validated choices. `alpha` None is the model's default; `thresholds` override alpha, by score."""

    scores: tuple[str, ...]
    alpha: float | None
    thresholds: Mapping[str, float]
    timeout_ms: int
    explain: bool = False


@dataclass(frozen=True, slots=True)
class OptionLimits:
    """What a model and the settings let a request choose from."""

    scores: tuple[str, ...]
    default_score: str
    timeout_ms: int
    explains: bool = False


def query_options(query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The options among query parameters, as text. Raises `InvalidParameter` for others and for repeated ones."""
    options: dict[str, Any] = {}
    for name, value in query:
        # A mistyped `alhpa=0.001` must not be scored quietly at the default alpha.
        if name not in OPTION_NAMES:
            raise InvalidParameter(name, f"no such parameter; the parameters are {', '.join(OPTION_NAMES)}")
        if name in options:
            raise InvalidParameter(name, "given twice; give it once (several scores as `scores=msp,energy`)")
        options[name] = value
    return options


def parse_options(given: Mapping[str, Any], choices: OptionLimits) -> Options:
    """Validate `given` (texts from a query or JSON values). Raises `InvalidParameter`, which names the parameter."""
    scores = _scores(given.get("scores"), choices)
    alpha = given.get("alpha")
    timeout = given.get("timeout_ms")
    return Options(
        scores=scores,
        alpha=None if alpha is None else _alpha(alpha),
        thresholds=_thresholds(given.get("threshold"), scores),
        # A client may be less patient than the service, never more.
        timeout_ms=choices.timeout_ms if timeout is None else min(_timeout(timeout), choices.timeout_ms),
        explain=_explain(given.get("explain"), choices),
    )


def _scores(value: Any, choices: OptionLimits) -> tuple[str, ...]:
    if value is None:
        return (choices.default_score,)
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InvalidParameter("scores", "give score names, for example `msp,energy`, or `all`")
    if names == ["all"]:
        return choices.scores
    for name in names:
        if name not in choices.scores:
            offered = ", ".join(choices.scores)
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


def _explain(value: Any, choices: OptionLimits) -> bool:
    if value is None:
        return False
    wanted = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
    if not isinstance(wanted, bool):
        raise InvalidParameter("explain", f"{str(value)[:64]!r} is neither true nor false")
    if wanted and not choices.explains:
        raise InvalidParameter("explain", "this model has no parts to show; models of likelihoods (bpp, bpc, bpw) have")
    return wanted


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
