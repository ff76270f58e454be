"""One served model version: everything that a request to it passes through."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bundle import Bundle, ManifestInvalid, load_bundle
from service.batcher import Batcher
from service.cores import available_cores
from service.drift import DriftEvidence
from service.engine import Engine
from service.metrics import Metrics, ModelMeters
from service.modalities import Modality
from service.options import Choices, Options
from service.providers import Provider
from service.scoring import Scorer
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded, warm model version. `close` ends its engine's thread."""

    bundle: Bundle
    modality: Modality
    provider: str
    batcher: Batcher
    scorer: Scorer
    choices: Choices
    meters: ModelMeters
    drift: DriftEvidence

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
        return Options((self.choices.default_score,), None, {}, self.choices.timeout_ms)

    def close(self) -> None:
        """Finish what is queued and end the engine's thread. Blocks."""
        self.batcher.close()


def model_loader(
    settings: Settings, provider: Provider, metrics: Metrics, loop: asyncio.AbstractEventLoop
) -> Callable[[Path], Model]:
    """A function from a bundle's folder to the model, warm. It raises `BundleError` or `EngineError`."""

    def load(path: Path) -> Model:
        bundle = load_bundle(path)
        _check_place(path, bundle)
        engine = Engine(bundle, provider, threads=settings.threads or available_cores())
        pace = engine.warm_up(settings.max_batch, settings.batch_ms / 1000)
        manifest = bundle.manifest
        name, version = manifest.name, manifest.version
        scores = tuple(score.name for score in manifest.scores)
        drift = DriftEvidence(bundle.calibrations[manifest.default_score])
        meters = ModelMeters(metrics, name, version, scores, manifest.default_score, drift)
        scorer = Scorer.of(bundle, settings.alpha)
        metrics.describe(name, version, engine.provider, provider.first, scorer)
        batcher = Batcher(
            f"{name}-{version}",
            engine.modality.arrange(engine.run),
            pace,
            capacity=settings.queue_size,
            loop=loop,
            streams=engine.streams,
            size_of=engine.modality.size_of,
            observer=meters,
        )
        metrics.watch_queue(name, batcher)
        choices = Choices(scores, manifest.default_score, settings.timeout_ms, explains=manifest.likelihood is not None)
        return Model(bundle, engine.modality, engine.provider, batcher, scorer, choices, meters, drift)

    return load


def _check_place(path: Path, bundle: Bundle) -> None:
    """A model is asked for by its folder's name: the manifest must not say another.

    By the name in the repository, wherever a link leads: a link of another name would be the same version once more.
    """
    name, version = bundle.manifest.name, bundle.manifest.version
    folder = f"{path.parent.name}/{path.name}"
    if folder != f"{name}/{version}":
        raise ManifestInvalid(
            bundle.path,
            "name, version",
            f"the manifest says {name}/{version}, the folder is {folder}",
            "Rename the folder, or export the bundle under this name",
        )
