"""Shadow versions: they score what another version has answered, for the metrics only."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import structlog

from bundle import ImageInput, TextInput
from service.errors import DeadlineExceeded, InputError
from service.inference.outcomes import QueueFull
from service.inference.reservation import Reservation
from service.inputs.modality import Limits, Prepared
from service.inputs.payloads import Input
from service.repository.model import Model
from service.scoring.options import Options
from service.scoring.scored_input import Result, ScoredInput

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that `model` has answered: its inputs, what became of each on the way, and what was asked for."""

    model: Model
    inputs: Sequence[Input]
    prepared: Sequence[Prepared]
    results: Sequence[Result]
    options: Options


class Shadows:
    """Lets shadows score what was answered, after the answer; owns these tasks. On the event loop's thread only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        # One thread of their own: what answers are prepared on is not theirs to fill.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def offer(self, shadows: Iterable[Model], answered: Answered) -> None:
        """Begin to score `answered` by each of `shadows`; returns at once.

        Shadows give way: where their queue, or half of the queue that answers, is full, the inputs are dropped.
        """
        batcher = answered.model.batcher
        for shadow in shadows:
            if shadow is answered.model:
                continue
            count = len(answered.inputs)
            places = None
            with suppress(QueueFull):
                if 2 * batcher.depth <= batcher.capacity:
                    places = shadow.batcher.reserve(count, answered.options.timeout_ms / 1000)
            if places is None:
                shadow.metrics.shadow_dropped("overloaded", count)
                continue
            held = ExitStack()
            held.enter_context(shadow.references)
            held.enter_context(places)
            task = asyncio.create_task(self._score(shadow, places, answered))
            self._tasks.add(task)
            # Whatever becomes of the task, even if it never began.
            task.add_done_callback(_closing(held, self._tasks))

    def close(self) -> None:
        """Drop what is not scored yet."""
        for task in self._tasks:
            task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _score(self, shadow: Model, places: Reservation, answered: Answered) -> None:
        options = _options(shadow, answered.options)
        try:
            prepared = answered.prepared
            if not same_input(shadow, answered.model):
                loop = asyncio.get_running_loop()
                prepared = await loop.run_in_executor(self._pool, self._prepare, shadow, answered.inputs)
            arrays = [each for each in prepared if not isinstance(each, InputError)]
            outcomes = await places.run(arrays, deadline=time.monotonic() + options.timeout_ms / 1000)
            _count(shadow, shadow.scorer.results(prepared, outcomes, options), answered.results)
        except Exception:
            log.exception("a shadow failed", model=shadow.name, version=shadow.version)
            shadow.metrics.shadow_dropped("failed", len(answered.inputs))

    def _prepare(self, shadow: Model, inputs: Sequence[Input]) -> list[Prepared]:
        return [shadow.modality.prepare(each.payload, self._limits) for each in inputs]


def same_input(one: Model, other: Model) -> bool:
    """Whether an input prepared for the one is as the other takes it. Normalising images is the graph's part."""
    mine, theirs = one.bundle.manifest, other.bundle.manifest
    match mine.input, theirs.input:
        case ImageInput() as a, ImageInput() as b:
            return (a.height, a.width, a.channels, a.resize) == (b.height, b.width, b.channels, b.resize)
        case TextInput() as a, TextInput() as b:
            same_tokens = mine.files[a.tokenizer] == theirs.files[b.tokenizer]
            return same_tokens and a.max_tokens == b.max_tokens
        case _:
            return False


def _options(shadow: Model, given: Options) -> Options:
    """What was asked for, as far as the shadow offers it: what the client would have got, had the shadow answered."""
    scores = tuple(score for score in given.scores if score in shadow.option_limits.scores)
    if not scores:
        return shadow.default_options
    thresholds = {score: given.thresholds[score] for score in scores if score in given.thresholds}
    return replace(given, scores=scores, thresholds=thresholds, explain=False)


def _count(shadow: Model, results: Sequence[Result], answers: Sequence[Result]) -> None:
    """Count each input that `shadow` scored or dropped; `answers` are the results of the version that answered."""
    for result, answer in zip(results, answers, strict=True):
        if isinstance(result, ScoredInput):
            shadow.metrics.scored(result.scores)
            if isinstance(answer, ScoredInput):
                for name in result.scores.keys() & answer.scores.keys():
                    differs = result.scores[name].flagged != answer.scores[name].flagged
                    shadow.metrics.shadow_compared(name, differs=differs)
        elif result.type == DeadlineExceeded.type:
            shadow.metrics.shadow_dropped(DeadlineExceeded.type, 1)
        elif not isinstance(answer, InputError):
            # An input that neither version can score is no failure of the shadow.
            shadow.metrics.shadow_dropped("failed", 1)


def _closing(held: ExitStack, tasks: set[asyncio.Task[None]]) -> Callable[[asyncio.Task[None]], None]:
    def close(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        held.close()

    return close
