"""A loaded model version: the components that a request to it passes through, and how a bundle is made one."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

import structlog

from bundle import Bundle, ManifestInvalid, load_bundle
from service.cpu_count import available_cores
from service.inference.batch_tuning import tune
from service.inference.batcher import Batcher
from service.inference.engine import Engine, open_engine
from service.inference.engine_health import EngineHealth
from service.inference.engine_monitor import EngineState
from service.inference.engine_thread import EngineThread
from service.inference.execution_plan import ExecutionPlan
from service.inference.providers import CPU, Provider
from service.inputs.modality import Modality
from service.scoring.drift import DriftEvidence
from service.scoring.explanations import explanations_of
from service.scoring.options import OptionLimits, Options
from service.scoring.scorer import Scorer
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.model_metrics import ModelMetrics
from service.worker_group import SINGLE_WORKER, WorkerGroup

log = structlog.stdlib.get_logger(__name__)


class ReferenceCount:
    """Counts the users of a model, so that a replaced model is closed after its last request.

    A user holds `with model.references:` while it needs the engine. For the event loop's thread only.
    """

    __slots__ = ("_count", "_unused")

    def __init__(self) -> None:
        self._count = 0
        self._unused: asyncio.Event | None = None

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._count -= 1
        if not self._count and self._unused is not None:
            self._unused.set()

    async def wait_unused(self) -> None:
        """Wait until the count is zero. Call it only after the model is no longer handed out."""
        if self._count:
            self._unused = asyncio.Event()
            await self._unused.wait()


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded, warm model version; call `close` once `references` are unused.

    Attributes:
        bundle: The verified bundle.
        modality: Turns inputs into arrays.
        provider: The ONNX Runtime provider that the model runs on.
        preferred_provider: The provider that it would run on if it were available.
        nodes: On a GPU, the number of operators that each provider computes.
        batcher: The queue in front of the engine.
        scorer: Turns the engine's outputs into scores.
        option_limits: What a request may choose.
        metrics: The version's metrics.
        drift: The version's drift evidence.
        references: Counts the requests that use the model.
    """

    bundle: Bundle
    modality: Modality
    provider: str
    preferred_provider: str
    nodes: Mapping[str, int]
    batcher: Batcher
    scorer: Scorer
    option_limits: OptionLimits
    metrics: ModelMetrics
    drift: DriftEvidence
    references: ReferenceCount = field(default_factory=ReferenceCount)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.bundle.manifest.name

    @property
    def version(self) -> str:
        """The version, a decimal number as text."""
        return self.bundle.manifest.version

    @property
    def default_options(self) -> Options:
        """The options of a request that chooses nothing."""
        return self.option_limits.default_options

    @property
    def explains_tokens(self) -> bool:
        """Whether a text is explained by its scores without one token each."""
        return "token_changes" in self.option_limits.explanations

    def publish(self) -> None:
        """Set the metrics of a served version."""
        self.metrics.publish(self.provider, self.preferred_provider, self.scorer, self.batcher, self.nodes)

    def reset_drift(self) -> None:
        """Restart the drift evidence from the calibration set."""
        log.info("drift evidence reset", model=self.name, version=self.version, log10=self.drift.log10)
        self.drift.reset()

    def close(self) -> None:
        """Run the queued inputs, stop the engine's threads and remove the metrics' series. Blocks."""
        self.batcher.close()
        self.metrics.retire()


def model_loader(
    settings: Settings,
    provider: Provider,
    registry: Metrics,
    loop: asyncio.AbstractEventLoop,
    health: EngineHealth,
    worker_group: WorkerGroup = SINGLE_WORKER,
    model_providers: Mapping[str, Provider] | None = None,
) -> Callable[[Bundle], Model]:
    """Create the function that makes a verified bundle a warm model.

    Args:
        settings: The service's settings.
        provider: The ONNX Runtime provider.
        registry: The application's metrics.
        loop: The event loop that requests run on.
        health: Watches the engines.
        worker_group: The workers that share the cores; one of them measures a bundle's execution plan for all.
        model_providers: The providers of models that do not use `provider`, by name.

    Returns:
        The function; it raises `EngineError` or `ProviderUnavailable`.
    """

    def open_tuned(bundle: Bundle, wanted: Provider) -> tuple[Engine, ExecutionPlan]:
        cores = settings.threads or available_cores()
        engine = open_engine(bundle, wanted, cores=cores, max_batch=settings.max_batch, watch=health.add)
        memo = partial(_measure_once, worker_group, bundle)
        try:
            plan = tune(engine, settings.max_batch, settings.batch_ms / 1000, memo).for_worker(worker_group.count)
            engine.release_memory(plan.max_batch)
        except Exception:
            engine.monitor.state = EngineState.CLOSED
            raise
        return engine, plan

    def load(bundle: Bundle) -> Model:
        wanted = (model_providers or {}).get(bundle.manifest.name, provider)
        if wanted.first == CPU:
            return make_model(bundle, wanted, *open_tuned(bundle, wanted))
        thread = EngineThread(bundle.manifest.model)
        try:
            engine, plan = thread.call(partial(open_tuned, bundle, wanted))
            model = make_model(bundle, wanted, engine, plan, None if engine.on_cpu else thread)
            if not engine.on_cpu:
                thread.post(engine.close)
            return model
        finally:
            thread.end()

    def make_model(
        bundle: Bundle, wanted: Provider, engine: Engine, plan: ExecutionPlan, thread: EngineThread | None = None
    ) -> Model:
        manifest = bundle.manifest
        name, version = manifest.name, manifest.version
        scores = tuple(score.name for score in manifest.scores)
        drift = DriftEvidence(bundle.calibrations[manifest.default_score])
        metrics = ModelMetrics(registry, name, version, scores, manifest.default_score, drift)
        engine.on_shape_change = metrics.shape_changed
        scorer = Scorer.of(bundle, settings.alpha, engine.modality)
        batcher = Batcher(
            f"{name}-{version}",
            engine.run,
            plan,
            capacity=settings.queue_size,
            loop=loop,
            size_of=engine.modality.size_of,
            observer=metrics,
            monitor=engine.monitor,
            thread=thread,
            explain=engine.explain,
        )
        engine.monitor.planned_seconds = _longest_call(plan, engine.modality, settings.batch_ms / 1000)
        engine.monitor.on_stall = metrics.stalled
        engine.monitor.on_failure = metrics.engine_failed
        engine.monitor.state = EngineState.SERVING
        option_limits = OptionLimits(
            scores,
            manifest.default_score,
            settings.timeout_ms,
            explanations=explanations_of(manifest),
            model_outputs=manifest.model_outputs,
        )
        return Model(
            bundle,
            engine.modality,
            engine.provider,
            wanted.preferred,
            {name: operators.total() for name, operators in engine.nodes.items()},
            batcher,
            scorer,
            option_limits,
            metrics,
            drift,
        )

    return load


def _longest_call(plan: ExecutionPlan, modality: Modality, max_seconds: float) -> float:
    """The seconds that a call takes by the plan: those of a full batch, or of the largest input alone."""
    largest = 0 if modality.size_of is None else modality.size_of(modality.probe_pair()[1])
    return max(plan.max_batch * plan.seconds_per_input, max_seconds * largest / plan.max_positions)


def _measure_once(worker_group: WorkerGroup, bundle: Bundle, measure: Callable[[], ExecutionPlan]) -> ExecutionPlan:
    """The plan that `measure` returns to the first worker that loads `bundle`."""
    digest = hashlib.sha256(bundle.manifest.model_dump_json().encode()).hexdigest()
    fields = worker_group.compute_once(f"execution-plan-{digest}", lambda: measure().to_json())
    return ExecutionPlan.from_json(fields)


def verified_bundle(path: Path) -> Bundle:
    """Load the bundle in `path` and verify each file against its manifest.

    Requests name a model by its folder, so the folder `<name>/<version>` must agree with the manifest. A symbolic link
    counts by its own name, not its target's: otherwise one version could be served under two names.

    Raises:
        BundleError: A file is missing or damaged, or the names disagree.
    """
    bundle = load_bundle(path)
    name, version = bundle.manifest.name, bundle.manifest.version
    folder = f"{path.parent.name}/{path.name}"
    if folder != f"{name}/{version}":
        raise ManifestInvalid(
            bundle.path,
            "name, version",
            f"the manifest says {name}/{version}, the folder is {folder}",
            "Rename the folder, or export the bundle under this name",
        )
    return bundle
