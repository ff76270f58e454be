"""The output tensors: what there is for a model, what a request gets, and each one's value from an input's result."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from service.errors import InvalidParameter
from service.protocols.open_inference.schemas import Datatype
from service.scoring.options import Options
from service.scoring.scored_input import ScoredInput

_FIELDS: Mapping[str, Datatype] = {"flagged": "BOOL", "p_value": "FP64", "anomaly": "FP64", "threshold": "FP64"}

NEVER_FLAGGED = sys.float_info.max
"""The threshold where nothing can be flagged: no anomaly is above it, and unlike infinity it is a number in JSON."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output tensor. `read` takes its value from a result; `score` is the one that must have been asked for."""

    name: str
    datatype: Datatype
    read: Callable[[ScoredInput], Any]
    score: str | None = None


# Few models are served, and theirs are asked for with every request.
@lru_cache(maxsize=256)
def outputs_of(scores: tuple[str, ...], classifies: bool) -> Mapping[str, Output]:
    """Every output of a model that offers `scores`, by name."""
    outputs = [Output(field, datatype, _of_first(field)) for field, datatype in _FIELDS.items()]
    if classifies:
        outputs += [
            Output("label", "BYTES", attrgetter("prediction.label")),
            Output("prediction", "INT64", attrgetter("prediction.index")),
            Output("probability", "FP32", attrgetter("prediction.probability")),
        ]
    for score in scores:
        outputs.append(Output(score, "FP32", _of_score(score, "value"), score))
        outputs += [
            Output(f"{score}.{field}", datatype, _of_score(score, field), score) for field, datatype in _FIELDS.items()
        ]
    return {output.name: output for output in outputs}


def scores_of(names: Iterable[str], offered: Mapping[str, Output]) -> list[str]:
    """The scores that outputs of these `names` need, in their order. Raises `InvalidParameter` for an unknown name."""
    scores: dict[str, None] = {}
    for name in names:
        if name not in offered:
            raise InvalidParameter(
                "outputs", f"there is no output {name[:64]!r}; this model's outputs are {', '.join(offered)}"
            )
        if (score := offered[name].score) is not None:
            scores[score] = None
    return list(scores)


def choose_outputs(names: Sequence[str] | None, offered: Mapping[str, Output], options: Options) -> list[Output]:
    """The outputs of these `names`; without any, all about the scores of `options`, nothing twice.

    Raises `InvalidParameter` for a name that comes twice, and for an output of another score.
    """
    if names is None:
        further = [each for each in offered.values() if each.score in options.scores[1:]]
        return [each for each in offered.values() if each.score is None or each.name == options.scores[0]] + further
    for index, name in enumerate(names):
        score = offered[name].score
        if name in names[:index]:
            raise InvalidParameter("outputs", f"output {name!r} is asked for twice; ask once")
        if score is not None and score not in options.scores:
            raise InvalidParameter(
                "outputs",
                f"output {name!r} needs the score {score}, but `scores` asks for {', '.join(options.scores)} only; "
                f"add {score} to it, or leave `scores` out",
            )
    return [offered[name] for name in names]


def _of_first(field: str) -> Callable[[ScoredInput], Any]:
    read = attrgetter(field)
    return lambda result: _number(read(next(iter(result.scores.values()))))


def _of_score(score: str, field: str) -> Callable[[ScoredInput], Any]:
    read = attrgetter(field)
    return lambda result: _number(read(result.scores[score]))


def _number(value: Any) -> Any:
    return NEVER_FLAGGED if value is None else value
