"""The model repository: `<name>/<version>/` folders, the good ones served, the others refused with their reason."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from bundle import MANIFEST_NAME, BundleError
from service.engine import EngineError
from service.model import Model
from service.problems import UnknownModel, UnknownVersion
from service.providers import ProviderUnavailable

log = structlog.stdlib.get_logger(__name__)


class RepositoryError(Exception):
    """There is nothing to serve; the message names the folder, each reason, and the remedy."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A bundle that is not served, by its place in the repository, and why."""

    path: str
    reason: str


class Repository:
    """The models that are served, by name and version."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refused: list[Refused] = []
        self._models: dict[str, dict[str, Model]] = {}

    @property
    def names(self) -> list[str]:
        """The served models' names, sorted."""
        return sorted(self._models)

    def versions(self, name: str) -> list[str]:
        """The served versions of `name`, oldest first. Raises `UnknownModel`."""
        return sorted(self._of(name), key=int)

    def get(self, name: str, version: str | None = None) -> Model:
        """The model `name` in `version`, or in its latest. Raises `UnknownModel` or `UnknownVersion`."""
        models = self._of(name)
        if version is None:
            # Insertion order is version order: see `load`.
            return next(reversed(models.values()))
        try:
            return models[version]
        except KeyError:
            served = ", ".join(models)
            raise UnknownVersion(f"Model {name} has no version {version[:64]!r}; it has {served}.") from None

    def __iter__(self) -> Iterator[Model]:
        for name in self.names:
            yield from self._models[name].values()

    def load(self, load: Callable[[Path], Model]) -> None:
        """Load every bundle under the root; blocks for seconds.

        A bundle that cannot be loaded is noted in `refused` and logged, the others are served. Raises
        `RepositoryError` where nothing can be served, `ProviderUnavailable` where the required provider is not there.
        """
        found: list[Model] = []
        for path in self._bundles():
            try:
                found.append(load(path))
            except BundleError as error:
                self._refuse(path, f"{error.where}: {error.reason}. {error.remedy}.")
            except EngineError as error:
                self._refuse(path, str(error))
            except ProviderUnavailable:
                raise
            except Exception as error:
                log.exception("a bundle could not be loaded", bundle=str(path))
                self._refuse(path, f"{type(error).__name__}: {error}")
        models: dict[str, dict[str, Model]] = {}
        for model in sorted(found, key=lambda model: int(model.version)):
            models.setdefault(model.name, {})[model.version] = model
            log.info("model loaded", model=model.name, version=model.version, provider=model.provider)
        if not models:
            raise RepositoryError(self._nothing())
        # In one step: requests read it on another thread.
        self._models = models

    def close(self) -> None:
        """Close every model; blocks until their engines have finished."""
        for model in self:
            model.close()

    def _of(self, name: str) -> dict[str, Model]:
        try:
            return self._models[name]
        except KeyError:
            raise UnknownModel(
                f"No model {name[:64]!r} is served; GET /v1/models lists the models: {', '.join(self.names)}."
            ) from None

    def _bundles(self) -> Iterator[Path]:
        if not self.root.is_dir():
            raise RepositoryError(
                f"The model repository {str(self.root)!r} is not a folder. Set OOD_MODELS (or --models) to a folder of "
                "<name>/<version>/ bundles."
            )
        for model in sorted(_folders(self.root)):
            if (model / MANIFEST_NAME).exists():
                self._refuse(model, f"a bundle belongs one level deeper, in {model.name}/<version>/; move it there")
            yield from sorted(_folders(model))

    def _refuse(self, path: Path, reason: str) -> None:
        # Clients see this: where the repository lies on this machine is not theirs to know.
        refused = Refused(path.relative_to(self.root).as_posix(), reason.replace(f"{self.root.resolve()}/", ""))
        self.refused.append(refused)
        log.error("bundle refused", bundle=refused.path, reason=refused.reason)

    def _nothing(self) -> str:
        reasons = "".join(f"\n  {refused.path}: {refused.reason}" for refused in self.refused)
        if reasons:
            return f"No bundle in the model repository {str(self.root)!r} can be served:{reasons}"
        return (
            f"The model repository {str(self.root)!r} holds no bundle. Export one to <name>/<version>/ there, or set "
            "OOD_MODELS (or --models) to another folder."
        )


def _folders(path: Path) -> list[Path]:
    # report/ and the like lie inside versions; hidden folders belong to version control and mounted volumes.
    return [child for child in path.iterdir() if child.is_dir() and not child.name.startswith((".", "_"))]
