"""Closes models that are no longer served, after the last request that uses them."""

import asyncio
from concurrent.futures import Executor

import structlog

from service.repository.model import Model
from service.telemetry.metrics import Metrics

log = structlog.stdlib.get_logger(__name__)


class Retirement:
    """Closes replaced and removed models in background tasks. For the event loop's thread only."""

    def __init__(self, metrics: Metrics, executor: Executor) -> None:
        """Start without any model.

        Args:
            metrics: The application's metrics.
            executor: Runs `Model.close`, which blocks.
        """
        self._metrics = metrics
        self._executor = executor
        self._tasks: dict[asyncio.Task[None], Model] = {}

    def retire(self, model: Model) -> None:
        """Close `model` as soon as it is unused."""
        task = asyncio.create_task(self._close_when_unused(model))
        self._tasks[task] = model
        task.add_done_callback(self._tasks.pop)

    def cancel(self) -> list[Model]:
        """Stop waiting for requests, and return the models that are not closed yet."""
        models = list(self._tasks.values())
        for task in self._tasks:
            task.cancel()
        return models

    async def _close_when_unused(self, model: Model) -> None:
        await model.references.wait_unused()
        await asyncio.get_running_loop().run_in_executor(self._executor, model.close)
        self._metrics.reloads.labels(model.name, "retired").inc()
        log.info("model retired", model=model.name, version=model.version)
