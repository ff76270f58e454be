"""A loaded model version: the components that a request to it passes through, and how a bundle is made one."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import structlog

from bundle import Bundle, ManifestInvalid, load_bundle
from service.inference.engine_queue import EngineQueue
from service.inference.engines import Engines
from service.inputs.modality import Modality
from service.scoring.drift import DriftEvidence
from service.scoring.explanations import explanations_of
from service.scoring.options import OptionLimits, Options
from service.scoring.scorer import Scorer
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.model_metrics import ModelMetrics

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
    batcher: EngineQueue
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


def model_loader(settings: Settings, engines: Engines, registry: Metrics) -> Callable[[Bundle], Model]:
    """Create the function that makes a verified bundle a warm model.

    Args:
        settings: The service's settings.
        engines: Opens the engines.
        registry: The application's metrics.

    Returns:
        The function; it raises `EngineError` or `ProviderUnavailable`.
    """

    def load(bundle: Bundle) -> Model:
        manifest = bundle.manifest
        scores = tuple(score.name for score in manifest.scores)
        drift = DriftEvidence(bundle.calibrations[manifest.default_score])
        observers: list[ModelMetrics] = []

        def make_metrics() -> ModelMetrics:
            observers.append(
                ModelMetrics(registry, manifest.name, manifest.version, scores, manifest.default_score, drift)
            )
            return observers[0]

        engine = engines.open(bundle, make_metrics)
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
            engine.preferred_provider,
            engine.nodes,
            engine.queue,
            Scorer.of(bundle, settings.alpha, engine.modality),
            option_limits,
            observers[0],
            drift,
        )

    return load


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
