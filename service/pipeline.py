"""The path of a scoring request, whatever its protocol: model, queue, preparation, engine, results."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from service.errors import DeadlineExceeded, InputError, InvalidInput, InvalidParameter, Problem
from service.http.deadline import Deadline
from service.http.load_shedding import longest_wait, reserve
from service.inference.outcomes import Expired, Outcome, Row
from service.inference.reservation import Reservation
from service.inputs.modality import Prepared, arrays_of
from service.inputs.payloads import Input
from service.inputs.preprocessor import Preprocessor
from service.lifecycle import Lifecycle
from service.repository.model import Model
from service.repository.served import Repository
from service.repository.shadow import AnsweredRequest, Shadows
from service.scoring.options import Options
from service.scoring.scored_input import Result
from service.scoring.token_changes import LeaveOneOut
from service.telemetry.metrics import REJECTIONS

if TYPE_CHECKING:
    from service.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class _Computed:
    """The outcomes of a request's inputs, and of the texts without a token that explain them."""

    outcomes: Sequence[Outcome]
    variants: LeaveOneOut | None = None
    of_variants: Sequence[Outcome] = ()


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
        *,
        max_inputs: int,
    ) -> None:
        """Connect the parts of the service.

        Args:
            repository: The served models.
            lifecycle: Whether requests are taken.
            preprocessor: Prepares inputs.
            shadows: Score the inputs of answered requests, too.
            tracing: Records spans; None without tracing.
            max_inputs: Most inputs that are computed for a request, those that explain texts included.
        """
        self._repository = repository
        self._lifecycle = lifecycle
        self._preprocessor = preprocessor
        self._shadows = shadows
        self._tracing = tracing
        self._max_inputs = max_inputs

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
            InvalidParameter: The request has too many texts to explain them.
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
            computed = await self._compute(model, reservation, prepared, options, started + seconds)
        if self._tracing is not None:
            rows = (row for row in computed.outcomes if isinstance(row, Row))
            self._tracing.record_scoring(started, prepared_at, rows)
        if any(isinstance(outcome, Expired) for outcome in (*computed.outcomes, *computed.of_variants)):
            raise _deadline_exceeded(options)
        results = model.scorer.results(prepared, computed.outcomes, options)
        if computed.variants is not None:
            results = computed.variants.explain(results, prepared, computed.of_variants, options.scores[0])
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

    async def _compute(
        self, model: Model, reservation: Reservation, prepared: Sequence[Prepared], options: Options, deadline: float
    ) -> _Computed:
        """Have the engine compute the prepared inputs and, to explain texts, these texts without one token each."""
        arrays = arrays_of(prepared)
        if not (options.explain and model.explains_tokens):
            return _Computed(await reservation.run(arrays, deadline=deadline, explain=options.explain))
        most = self._max_inputs - len(arrays)
        if most < len(arrays):
            raise InvalidParameter("explain", f"at most {self._max_inputs // 2} texts of a request can be explained")
        encoder = model.bundle.text_encoder
        assert encoder is not None, "the model reads texts"
        variants = LeaveOneOut.of(prepared, encoder, most)
        with reserve(model, len(variants.texts), options.timeout_ms) as slots:
            outcomes, of_variants = await asyncio.gather(
                reservation.run(arrays, deadline=deadline, explain=True),
                slots.run(variants.texts, deadline=deadline),
            )
        return _Computed(outcomes, variants, of_variants)


def _deadline_exceeded(options: Options) -> DeadlineExceeded:
    return DeadlineExceeded(f"The request was not scored within {options.timeout_ms} ms; it costs no more compute.")


def _raise_first_error(model: Model, inputs: Sequence[Input], results: Sequence[Prepared | Result]) -> None:
    """Raise `InvalidInput` for the first error among `results`, counted, if there is one."""
    for index, result in enumerate(results):
        if isinstance(result, InputError):
            model.metrics.input_error(result.type)
            raise InvalidInput(result, index, inputs[index].id)
