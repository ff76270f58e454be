"""One served model version: everything that a request to it passes through."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from bundle import Bundle, ManifestInvalid, load_bundle
from service.inference.batcher import Batcher
from service.inference.cpu_count import available_cores
from service.inference.engine import Engine
from service.inference.providers import Provider
from service.inputs.modality import Modality
from service.repository.reference_count import ReferenceCount
from service.scoring.drift import DriftEvidence
from service.scoring.options import OptionLimits, Options
from service.scoring.scorer import Scorer
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.model_metrics import ModelMetrics
from service.worker_group import SINGLE_WORKER, WorkerGroup

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded, warm model version. `close` ends its engine's thread, once nobody has it `references`."""

    bundle: Bundle
    modality: Modality
    provider: str
    preferred_provider: str
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
        """The version, a whole number as text."""
        return self.bundle.manifest.version

    @property
    def default_options(self) -> Options:
        """The options of a request that chooses nothing."""
        return Options((self.option_limits.default_score,), None, {}, self.option_limits.timeout_ms)

    def publish(self) -> None:
        """Tell the metrics that it is served from now on."""
        self.metrics.publish(self.provider, self.preferred_provider, self.scorer, self.batcher)

    def reset_drift(self) -> None:
        """Start the drift evidence anew from the calibration set."""
        log.info("drift evidence reset", model=self.name, version=self.version, log10=self.drift.log10)
        self.drift.reset()

    def close(self) -> None:
        """Finish what is queued, end the engine's thread, and take the metrics' series away. Blocks."""
        self.batcher.close()
        self.metrics.retire()


def model_loader(
    settings: Settings,
    provider: Provider,
    registry: Metrics,
    loop: asyncio.AbstractEventLoop,
    worker_group: WorkerGroup = SINGLE_WORKER,
) -> Callable[[Bundle], Model]:
    """A function from a verified bundle to the model, warm. It raises `EngineError` or `ProviderUnavailable`.

    The workers of a `worker_group` share the cores, and one of them measures a bundle's pace for all.
    """

    def load(bundle: Bundle) -> Model:
        engine = Engine(bundle, provider, threads=settings.threads or available_cores(), workers=worker_group.count)
        digest = hashlib.sha256(bundle.manifest.model_dump_json().encode()).hexdigest()
        memo = partial(worker_group.compute_once, f"pace-{digest}")
        pace = engine.warm_up(settings.max_batch, settings.batch_ms / 1000, memo)
        manifest = bundle.manifest
        name, version = manifest.name, manifest.version
        scores = tuple(score.name for score in manifest.scores)
        drift = DriftEvidence(bundle.calibrations[manifest.default_score])
        metrics = ModelMetrics(registry, name, version, scores, manifest.default_score, drift)
        scorer = Scorer.of(bundle, settings.alpha, engine.modality)
        batcher = Batcher(
            f"{name}-{version}",
            engine.modality.bucketed(engine.run),
            pace,
            capacity=settings.queue_size,
            loop=loop,
            streams=engine.streams,
            size_of=engine.modality.size_of,
            observer=metrics,
        )
        option_limits = OptionLimits(
            scores, manifest.default_score, settings.timeout_ms, explains=manifest.likelihood is not None
        )
        return Model(
            bundle, engine.modality, engine.provider, provider.first, batcher, scorer, option_limits, metrics, drift
        )

    return load


def verified_bundle(path: Path) -> Bundle:
    """The bundle in `path`, every file of it as its manifest says. Raises `BundleError`.

    A model is asked for by its folder's name, so that the manifest must not say another. By the name in the repository,
    wherever a link leads: a link of another name would be the same version once more.
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
