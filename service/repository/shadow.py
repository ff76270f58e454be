"""Shadow versions: they score the inputs of requests that another version has answered, for the metrics only."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import structlog

from bundle import ImageInput, TextInput
from service.errors import DeadlineExceeded, EngineUnavailable, InputError
from service.inference.outcomes import QueueFull
from service.inference.reservation import Reservation
from service.inputs.modality import Limits, Prepared, arrays_of
from service.inputs.payloads import Base64, Input, Payload, Pixels, Text
from service.repository.model import Model
from service.scoring.options import Options
from service.scoring.scored_input import Result, ScoredInput

log = structlog.stdlib.get_logger(__name__)


class Budget(Protocol):
    """A limit on the bytes of clients that the process holds."""

    def try_take(self, size: int) -> bool:
        """Hold `size` bytes until `give_back`; false if there is no room."""

    def give_back(self, size: int) -> None:
        """Release `size` bytes of `try_take`."""


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """A request that `model` has answered.

    Attributes:
        model: The version that answered.
        inputs: The request's inputs; none where a shadow scores the arrays in `prepared`.
        prepared: For each input the array that `model` scored, or the error of its preparation.
        results: For each input its result.
        options: The request's options.
    """

    model: Model
    inputs: Sequence[Input]
    prepared: Sequence[Prepared]
    results: Sequence[Result]
    options: Options


class Shadows:
    """Lets shadows score answered requests in background tasks. For the event loop's thread only."""

    def __init__(self, limits: Limits, budget: Budget) -> None:
        """Start without work.

        Args:
            limits: The limits of the preparation of inputs.
            budget: Counts inputs that are kept after the response of their request.
        """
        self._limits = limits
        self._budget = budget
        self._tasks: set[asyncio.Task[None]] = set()
        # A dedicated thread, so that shadow work cannot fill the pool that serves requests.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def offer(self, shadows: Iterable[Model], request: AnsweredRequest) -> None:
        """Start to score `request` on each of `shadows`, and return at once.

        The inputs are dropped if the shadow's queue is full, if the queue of the answering version is half full, or if
        the shadow prepares them anew and the memory for bodies is used up.
        """
        batcher = request.model.batcher
        for shadow in shadows:
            if shadow is request.model:
                continue
            count = len(request.results)
            # Inputs that are prepared alike are not kept.
            offered = replace(request, inputs=()) if same_input(shadow, request.model) else request
            size = sum(_size(item.payload) for item in offered.inputs)
            reservation = None
            if 2 * batcher.depth <= batcher.capacity and self._budget.try_take(size):
                with suppress(QueueFull, EngineUnavailable):
                    reservation = shadow.batcher.reserve(count, request.options.timeout_ms / 1000)
                if reservation is None:
                    self._budget.give_back(size)
            if reservation is None:
                shadow.metrics.shadow_dropped("overloaded", count)
                continue
            resources = ExitStack()
            resources.callback(self._budget.give_back, size)
            resources.enter_context(shadow.references)
            resources.enter_context(reservation)
            task = asyncio.create_task(self._score(shadow, reservation, offered))
            self._tasks.add(task)
            # A callback, because a task that is cancelled before it starts runs no `finally`.
            task.add_done_callback(partial(self._finish, resources))

    def close(self) -> None:
        """Cancel the unfinished tasks."""
        for task in self._tasks:
            task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _score(self, shadow: Model, reservation: Reservation, request: AnsweredRequest) -> None:
        options = _options(shadow, request.options)
        deadline = time.monotonic() + options.timeout_ms / 1000
        try:
            prepared = request.prepared
            if request.inputs:
                loop = asyncio.get_running_loop()
                # Cancels the work if it has not begun.
                async with asyncio.timeout(options.timeout_ms / 1000):
                    prepared = await loop.run_in_executor(self._pool, self._prepare, shadow, request.inputs)
            outcomes = await reservation.run(arrays_of(prepared), deadline=deadline)
            _count(shadow, shadow.scorer.results(prepared, outcomes, options), request.results)
        except TimeoutError:
            shadow.metrics.shadow_dropped(DeadlineExceeded.type, len(request.results))
        except EngineUnavailable:
            shadow.metrics.shadow_dropped("failed", len(request.results))
        except Exception:
            log.exception("shadow failed", model=shadow.name, version=shadow.version)
            shadow.metrics.shadow_dropped("failed", len(request.results))

    def _prepare(self, shadow: Model, inputs: Sequence[Input]) -> list[Prepared]:
        return [shadow.modality.prepare(item.payload, self._limits) for item in inputs]

    def _finish(self, resources: ExitStack, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        resources.close()


def _size(payload: Payload) -> int:
    """The bytes that a payload holds, about."""
    match payload:
        case bytes():
            return len(payload)
        case Base64(text) | Text(text):
            return len(text)
        case Pixels(array):
            return array.nbytes
        case _:
            return 0


def same_input(first: Model, second: Model) -> bool:
    """Whether both models take the same prepared inputs. The normalisation may differ: the graph does it."""
    manifest, other = first.bundle.manifest, second.bundle.manifest
    match manifest.input, other.input:
        case ImageInput() as a, ImageInput() as b:
            normalisation = {"mean", "std"}
            return a.model_dump(exclude=normalisation) == b.model_dump(exclude=normalisation)
        case TextInput() as a, TextInput() as b:
            same_tokens = manifest.files[a.tokenizer] == other.files[b.tokenizer]
            return same_tokens and a.max_tokens == b.max_tokens
        case _:
            return False


def _options(shadow: Model, requested: Options) -> Options:
    """The `requested` options restricted to the scores that the shadow has; its defaults if it has none of them."""
    scores = tuple(score for score in requested.scores if score in shadow.option_limits.scores)
    if not scores:
        return shadow.default_options
    thresholds = {score: requested.thresholds[score] for score in scores if score in requested.thresholds}
    return replace(requested, scores=scores, thresholds=thresholds, explain=False, model_outputs=())


def _count(shadow: Model, results: Sequence[Result], answers: Sequence[Result]) -> None:
    """Count each input that `shadow` scored or dropped; `answers` are the results of the version that answered."""
    for result, answer in zip(results, answers, strict=True):
        if isinstance(result, ScoredInput):
            shadow.metrics.scored(result)
            if isinstance(answer, ScoredInput):
                for name in result.scores.keys() & answer.scores.keys():
                    differs = result.scores[name].flagged != answer.scores[name].flagged
                    shadow.metrics.shadow_compared(name, differs=differs)
        elif result.type == DeadlineExceeded.type:
            shadow.metrics.shadow_dropped(DeadlineExceeded.type, 1)
        elif not isinstance(answer, InputError):
            # An input that neither version can score is no failure of the shadow.
            shadow.metrics.shadow_dropped("failed", 1)
