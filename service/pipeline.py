"""The one way of a scoring request through the service, whatever its protocol: model, body, queue, engine, results."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request

from service.errors import DeadlineExceeded, InputError, InvalidInput, Problem
from service.http.body import read_body
from service.http.deadline import DISCONNECTED, Deadline
from service.http.load_shedding import LoadShedder, overloaded
from service.http.request_id import REQUEST_ID
from service.inference.batcher import Expired, QueueFull, Reservation, Row
from service.inputs.modality import Prepared
from service.inputs.payloads import Input
from service.inputs.preprocessor import Preprocessor
from service.lifecycle import Lifecycle
from service.repository.model import Model
from service.repository.served import Repository
from service.repository.shadow import AnsweredRequest, Shadows
from service.scoring.options import Options
from service.scoring.scored_input import Result
from service.settings import Settings
from service.telemetry.metrics import REJECTIONS

if TYPE_CHECKING:
    from service.telemetry.tracing import Tracing

# Of a deadline, the share that may be spent waiting: the prediction errs, and computing and answering take time, too.
_WAITING = 0.7


class Pipeline:
    """What every protocol does alike, in three steps: `model`, `body`, `score`. The rest is to read and to answer."""

    def __init__(
        self,
        repository: Repository,
        lifecycle: Lifecycle,
        preprocessor: Preprocessor,
        shadows: Shadows,
        settings: Settings,
        load_shedder: LoadShedder,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._repository = repository
        self._lifecycle = lifecycle
        self._preprocessor = preprocessor
        self._shadows = shadows
        self._load_shedder = load_shedder
        self._tracing = tracing
        self._max_body_bytes = settings.max_body_bytes
        self._body_patience = settings.receive_timeout_seconds

    @contextmanager
    def model(self, request: Request) -> Iterator[Model]:
        """The model that the request's path names. What turns the request away inside is counted as the model's.

        Raises `Starting`, `Draining`, `UnknownModel` or `UnknownVersion`.
        """
        self._lifecycle.require_loaded()
        path = request.path_params
        model = self._repository.get(path["model"], path.get("version"), request.scope[REQUEST_ID])
        with model.references:
            try:
                self._lifecycle.require_ready()
                yield model
            except Problem as problem:
                if problem.type in REJECTIONS:
                    model.metrics.rejected(problem.type)
                raise

    async def body(self, request: Request, model: Model, options: Options) -> bytes:
        """The request's body, not read where the engine could not take its inputs in time. Check first what needs none.

        `options` are those that the request chose ahead of its body. Raises `Overloaded`, `BodyTooLarge`,
        `RequestTimeout` or `ClientDisconnected`.
        """
        patience = _WAITING * options.timeout_ms / 1000
        try:
            model.batcher.check_capacity(patience=patience)
        except QueueFull as busy:
            self._load_shedder.record_rejection(request.scope, model, patience)
            raise overloaded(model, busy) from None
        return await read_body(request, self._max_body_bytes, self._body_patience)

    async def score(
        self, request: Request, model: Model, inputs: Sequence[Input], options: Options, *, whole: bool = False
    ) -> list[Result]:
        """One result per input, in their order, each counted.

        A request of a single bad input raises `InvalidInput`; if it is to be answered as a `whole`, so does any with
        a bad input among others. Raises `Overloaded`, `DeadlineExceeded` or `ClientDisconnected`, too.
        """
        whole = whole or len(inputs) == 1
        seconds = options.timeout_ms / 1000
        begun = time.monotonic()
        patience = Deadline(seconds, partial(_late, options), request.scope.get(DISCONNECTED))
        with _admit(model, len(inputs), seconds) as places, patience:
            prepared = await self._preprocessor.prepare(inputs, model.modality, model.metrics.prepared)
            prepared_at = time.monotonic()
            if whole:
                _refuse_bad(model, inputs, prepared)
            arrays = [each for each in prepared if not isinstance(each, InputError)]
            outcomes = await places.run(arrays, deadline=begun + seconds)
        if self._tracing is not None:
            self._tracing.record_scoring(begun, prepared_at, (each for each in outcomes if isinstance(each, Row)))
        if any(isinstance(outcome, Expired) for outcome in outcomes):
            raise _late(options)
        results = model.scorer.results(prepared, outcomes, options)
        if whole:
            _refuse_bad(model, inputs, results)
        for result in results:
            if isinstance(result, InputError):
                model.metrics.input_error(result.type)
            else:
                model.metrics.scored(result.scores)
        if "version" not in request.path_params and (shadows := self._repository.shadows(model.name)):
            self._shadows.offer(shadows, AnsweredRequest(model, inputs, prepared, results, options))
        return results


def _admit(model: Model, count: int, seconds: float) -> Reservation:
    try:
        return model.batcher.reserve(count, _WAITING * seconds)
    except QueueFull as busy:
        raise overloaded(model, busy) from None


def _late(options: Options) -> DeadlineExceeded:
    return DeadlineExceeded(f"The request was not scored within {options.timeout_ms} ms; it costs no more compute.")


def _refuse_bad(model: Model, inputs: Sequence[Input], found: Sequence[Prepared | Result]) -> None:
    for index, each in enumerate(found):
        if isinstance(each, InputError):
            model.metrics.input_error(each.type)
            raise InvalidInput(each, index, inputs[index].id)
