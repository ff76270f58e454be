"""A parsed request through the pipeline: every input's result, or the error of one, named by its place."""

from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import Request

from service.errors import InvalidInput
from service.pipeline import Pipeline
from service.protocols.open_inference.request import Inference
from service.repository.model import Model
from service.scoring.scored_input import ScoredInput


async def score(pipeline: Pipeline, request: Request, model: Model, inference: Inference) -> Sequence[ScoredInput]:
    """One result per input, in their order. Raises as `Pipeline.score` does for a whole."""
    try:
        results = await pipeline.score(request, model, inference.inputs, inference.options, whole=True)
    except InvalidInput as bad:
        where = f"input {inference.tensor!r}, element {bad.index}"
        raise InvalidInput(replace(bad.error, detail=f"{where}: {bad.detail}"), bad.index, None) from None
    return [each for each in results if isinstance(each, ScoredInput)]
