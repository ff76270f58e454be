"""The engines of a process that computes itself: opens them, tunes them and puts a batcher in front of each."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

from typing_extensions import override

from bundle import Bundle
from service.cpu_count import available_cores
from service.inference.batch_tuning import tune
from service.inference.batcher import Batcher
from service.inference.engine import Engine, open_engine
from service.inference.engine_health import EngineHealth
from service.inference.engine_monitor import EngineState
from service.inference.engine_thread import EngineThread
from service.inference.engines import EngineObserver, Engines, OpenEngine
from service.inference.execution_plan import ExecutionPlan
from service.inference.providers import CPU, Provider, provider_of
from service.inputs.modality import Modality
from service.settings import Settings
from service.worker_group import SINGLE_WORKER, WorkerGroup


class LocalEngines(Engines):
    """Opens engines in this process."""

    def __init__(
        self,
        settings: Settings,
        provider: Provider,
        loop: asyncio.AbstractEventLoop,
        health: EngineHealth,
        worker_group: WorkerGroup = SINGLE_WORKER,
        model_providers: Mapping[str, Provider] | None = None,
    ) -> None:
        """Prepare to open engines.

        Args:
            settings: The service's settings.
            provider: The ONNX Runtime provider.
            loop: The event loop that gets the outcomes of inputs.
            health: Watches the engines.
            worker_group: The workers that share the cores; one of them measures a bundle's execution plan for all.
            model_providers: The providers of models that do not use `provider`, by name.
        """
        self._settings = settings
        self._provider = provider
        self._loop = loop
        self._health = health
        self._worker_group = worker_group
        self._model_providers = model_providers or {}

    @classmethod
    def of(
        cls, settings: Settings, loop: asyncio.AbstractEventLoop, health: EngineHealth, worker_group: WorkerGroup
    ) -> Self:
        """Engines on the providers that the settings choose.

        Raises:
            ProviderUnavailable: A required provider is missing.
        """
        model_providers = {name: provider_of(settings, choice) for name, choice in settings.model_providers.items()}
        return cls(settings, provider_of(settings, settings.provider), loop, health, worker_group, model_providers)

    @property
    @override
    def problem(self) -> str | None:
        return self._health.problem

    @override
    def open(self, bundle: Bundle, make_observer: Callable[[], EngineObserver], **batching: Any) -> OpenEngine:
        """Open the engine of `bundle`.

        Args:
            bundle: The bundle.
            make_observer: Makes the engine's observer, once the engine is warm.
            **batching: Further arguments of `Batcher`.
        """
        wanted = self._model_providers.get(bundle.manifest.name, self._provider)
        if wanted.first == CPU:
            return self._with_batcher(bundle, wanted, *self._open_tuned(bundle, wanted), None, make_observer, batching)
        thread = EngineThread(bundle.manifest.model)
        try:
            engine, plan = thread.call(partial(self._open_tuned, bundle, wanted))
            own_thread = None if engine.on_cpu else thread
            opened = self._with_batcher(bundle, wanted, engine, plan, own_thread, make_observer, batching)
            if not engine.on_cpu:
                thread.post(engine.close)
            return opened
        finally:
            thread.end()

    def _open_tuned(self, bundle: Bundle, wanted: Provider) -> tuple[Engine, ExecutionPlan]:
        settings = self._settings
        cores = settings.threads or available_cores()
        engine = open_engine(bundle, wanted, cores=cores, max_batch=settings.max_batch, watch=self._health.add)
        memo = partial(_measure_once, self._worker_group, bundle)
        try:
            plan = tune(engine, engine.max_batch, settings.batch_ms / 1000, memo)
            plan = plan.for_worker(self._worker_group.engines)
            engine.release_memory(plan.max_batch)
        except Exception:
            engine.monitor.state = EngineState.CLOSED
            raise
        return engine, plan

    def _with_batcher(
        self,
        bundle: Bundle,
        wanted: Provider,
        engine: Engine,
        plan: ExecutionPlan,
        thread: EngineThread | None,
        make_observer: Callable[[], EngineObserver],
        batching: Mapping[str, Any],
    ) -> OpenEngine:
        observer = make_observer()
        engine.on_shape_change = observer.shape_changed
        batcher = Batcher(
            f"{bundle.manifest.name}-{bundle.manifest.version}",
            engine.run,
            plan,
            capacity=self._settings.queue_size,
            loop=self._loop,
            size_of=engine.modality.size_of,
            observer=observer,
            monitor=engine.monitor,
            thread=thread,
            explain=engine.explain,
            **batching,
        )
        engine.monitor.planned_seconds = _longest_call(plan, engine.modality, self._settings.batch_ms / 1000)
        engine.monitor.on_stall = observer.stalled
        engine.monitor.on_failure = observer.engine_failed
        engine.monitor.state = EngineState.SERVING
        nodes = {name: operators.total() for name, operators in engine.nodes.items()}
        return OpenEngine(batcher, engine.modality, engine.provider, wanted.preferred, nodes, engine.sample_outputs)


def _longest_call(plan: ExecutionPlan, modality: Modality, max_seconds: float) -> float:
    """The seconds that a call takes by the plan: those of a full batch, or of the largest input alone."""
    largest = 0 if modality.size_of is None else modality.size_of(modality.probe_pair()[1])
    return max(plan.max_batch * plan.seconds_per_input, max_seconds * largest / plan.max_positions)


def _measure_once(worker_group: WorkerGroup, bundle: Bundle, measure: Callable[[], ExecutionPlan]) -> ExecutionPlan:
    """The plan that `measure` returns to the first worker that loads `bundle`."""
    fields = worker_group.compute_once(f"execution-plan-{digest_of(bundle)}", lambda: measure().to_json())
    return ExecutionPlan.from_json(fields)


def digest_of(bundle: Bundle) -> str:
    """A digest of the bundle's manifest, and so of all its files."""
    return hashlib.sha256(bundle.manifest.model_dump_json().encode()).hexdigest()
