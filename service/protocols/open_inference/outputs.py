"""Output tensors: those that a model offers, those that a request gets, and their values."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np

from bundle import ModelTensor
from service.errors import InvalidParameter
from service.protocols.open_inference.schemas import Datatype
from service.scoring.options import Options
from service.scoring.scored_input import ScoredInput

_FIELDS: Mapping[str, Datatype] = {"flagged": "BOOL", "p_value": "FP64", "anomaly": "FP64", "threshold": "FP64"}

NEVER_FLAGGED = sys.float_info.max
"""The threshold if nothing can be flagged: no anomaly is above it, and unlike infinity it is a number in JSON."""


@dataclass(frozen=True, slots=True)
class Output:
    """An output tensor.

    Attributes:
        name: The name of the tensor.
        datatype: The datatype of its values.
        read: Returns its value for a scored input.
        score: The score that must be computed for it; None for outputs about the first requested score, the class or
            the tokens.
        shape: The shape of its value for one input, without the batch.
        by_default: Whether a request that names no outputs gets it.
        is_own: Whether it is the wrapped classifier's own output.
    """

    name: str
    datatype: Datatype
    read: Callable[[ScoredInput], Any]
    score: str | None = None
    shape: tuple[int, ...] = ()
    by_default: bool = True
    is_own: bool = False


# Every request needs the outputs of its model, and few models are served.
@lru_cache(maxsize=256)
def outputs_of(
    scores: tuple[str, ...], classifies: bool, reads_tokens: bool = False, own: tuple[ModelTensor, ...] = ()
) -> Mapping[str, Output]:
    """Every output of a model, by name.

    Args:
        scores: The scores that the model offers.
        classifies: Whether there are outputs about the predicted class.
        reads_tokens: Whether there are outputs about the tokens of a text.
        own: The wrapped classifier's own outputs.
    """
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
    if reads_tokens:
        outputs += [
            Output("truncated", "BOOL", attrgetter("truncated"), by_default=False),
            Output("tokens_read", "INT64", attrgetter("tokens.read"), by_default=False),
            Output("tokens_total", "INT64", attrgetter("tokens.total"), by_default=False),
        ]
    outputs += [
        Output(tensor.name, tensor.datatype, _of_model(tensor.name), shape=tensor.shape, by_default=False, is_own=True)
        for tensor in own
    ]
    return {output.name: output for output in outputs}


def tensor_values(output: Output, results: Sequence[ScoredInput]) -> tuple[list[int], list[Any]]:
    """The shape of an output for `results`, and its values in row-major order."""
    values = [output.read(result) for result in results]
    if output.is_own:
        values = np.stack(values).ravel().tolist()
    return [len(results), *output.shape], values


def scores_of(names: Iterable[str], offered: Mapping[str, Output]) -> list[str]:
    """The scores that the outputs `names` need, in their order.

    Args:
        names: The names of requested outputs.
        offered: The outputs of the model, by name.

    Raises:
        InvalidParameter: The model has no such output.
    """
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
    """Choose the outputs of a request.

    Args:
        names: The names of the requested outputs; None chooses all outputs about the scores of `options`, without the
            classifier's own and without duplicates: what `flagged` and the like say about the first score is not
            repeated under its name.
        offered: The outputs of the model, by name.
        options: The options of the request.

    Raises:
        InvalidParameter: A name is requested twice, or an output belongs to a score that is not computed.
    """
    if names is None:
        first, *further = options.scores
        outputs = [
            output
            for output in offered.values()
            if output.by_default and (output.score is None or output.name == first)
        ]
        return outputs + [output for output in offered.values() if output.score in further]
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


def _of_model(name: str) -> Callable[[ScoredInput], Any]:
    return lambda result: (result.model_outputs or {})[name]


def _number(value: Any) -> Any:
    return NEVER_FLAGGED if value is None else value
