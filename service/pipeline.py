"""The path of a scoring request, whatever its protocol: model, queue, preparation, engine, results."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from service.errors import DeadlineExceeded, InputError, InvalidInput, Problem
from service.http.deadline import Deadline
from service.http.load_shedding import longest_wait, reserve
from service.inference.outcomes import Expired, Row
from service.inputs.modality import Prepared, arrays_of
from service.inputs.payloads import Input
from service.inputs.preprocessor import Preprocessor
from service.lifecycle import Lifecycle
from service.repository.model import Model
from service.repository.served import Repository
from service.repository.shadow import AnsweredRequest, Shadows
from service.scoring.options import Options
from service.scoring.scored_input import Result
from service.telemetry.metrics import REJECTIONS

if TYPE_CHECKING:
    from service.telemetry.tracing import Tracing


class Pipeline:
    """Scores the inputs of requests, whatever their protocol.

    A protocol enters `model`, parses its request in the block, and awaits `score`.
    """

    def __init__(
        self,
        repository: Repository,
        lifecycle: Lifecycle,
        preprocessor: Preprocessor,
        shadows: Shadows,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._repository = repository
        self._lifecycle = lifecycle
        self._preprocessor = preprocessor
        self._shadows = shadows
        self._tracing = tracing

    @contextmanager
    def model(self, name: str, version: str | None, request_id: str) -> Iterator[Model]:
        """Hold the model that a request asks for until the block ends.

        A problem that rejects the request within the block is counted in the metrics of the model.

        Args:
            name: The name of the model.
            version: Its version; None for the one that the traffic rules choose.
            request_id: Assigns a request without a version to the canary or to the version that serves.

        Raises:
            Starting: The models are not loaded yet.
            UnknownModel: No model of that name is served.
            UnknownVersion: The model is not served in that version.
            Draining: The service takes no new work.
        """
        self._lifecycle.require_loaded()
        model = self._repository.get(name, version, request_id)
        with model.references:
            try:
                self._lifecycle.require_open()
                yield model
            except Problem as problem:
                if problem.type in REJECTIONS:
                    model.metrics.rejected(problem.type)
                raise

    async def score(
        self,
        model: Model,
        inputs: Sequence[Input],
        options: Options,
        *,
        disconnected: asyncio.Future[None] | None,
        shadowed: bool,
        all_or_nothing: bool = False,
    ) -> list[Result]:
        """Score the inputs of one request.

        Args:
            model: The model, held by `self.model`.
            inputs: The inputs, at least one.
            options: The options of the request.
            disconnected: Is done once the client has disconnected; None if that cancels the task anyway.
            shadowed: Whether the model's shadow versions score the inputs, too: if the request names no version.
            all_or_nothing: Raise `InvalidInput` for a bad input among several instead of returning its error.

        Returns:
            One result per input, in their order.

        Raises:
            Overloaded: The queue of the model has no room.
            EngineUnavailable: The engine process is being restarted.
            InvalidInput: The only input is bad, or one of several is and `all_or_nothing` is true.
            DeadlineExceeded: The engine did not compute all inputs in time.
            ClientDisconnected: The client disconnected before.
        """
        all_or_nothing = all_or_nothing or len(inputs) == 1
        seconds = options.timeout_ms / 1000
        started = time.monotonic()
        deadline = Deadline(seconds, partial(_deadline_exceeded, options), disconnected)
        with reserve(model, len(inputs), options.timeout_ms) as reservation, deadline:
            prepared = await self._preprocessor.prepare(
                inputs, model.modality, model.metrics.prepared, max_wait=longest_wait(options.timeout_ms)
            )
            prepared_at = time.monotonic()
            if all_or_nothing:
                _raise_first_error(model, inputs, prepared)
            outcomes = await reservation.run(arrays_of(prepared), deadline=started + seconds)
        if self._tracing is not None:
            self._tracing.record_scoring(started, prepared_at, (row for row in outcomes if isinstance(row, Row)))
        if any(isinstance(outcome, Expired) for outcome in outcomes):
            raise _deadline_exceeded(options)
        results = model.scorer.results(prepared, outcomes, options)
        if all_or_nothing:
            _raise_first_error(model, inputs, results)
        for result in results:
            if isinstance(result, InputError):
                model.metrics.input_error(result.type)
            else:
                model.metrics.scored(result)
        if shadowed and (shadows := self._repository.shadows(model.name)):
            self._shadows.offer(shadows, AnsweredRequest(model, inputs, prepared, results, options))
        return results


def _deadline_exceeded(options: Options) -> DeadlineExceeded:
    return DeadlineExceeded(f"The request was not scored within {options.timeout_ms} ms; it costs no more compute.")


def _raise_first_error(model: Model, inputs: Sequence[Input], results: Sequence[Prepared | Result]) -> None:
    """Raise `InvalidInput` for the first error among `results`, counted, if there is one."""
    for index, result in enumerate(results):
        if isinstance(result, InputError):
            model.metrics.input_error(result.type)
            raise InvalidInput(result, index, inputs[index].id)
