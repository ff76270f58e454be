"""What lies in the repository and is not served, each with its reason: for the log, the metrics and who asks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from bundle import BundleError
from service.inference.onnx_session import EngineError
from service.inference.providers import ProviderUnavailable
from service.repository.snapshot import TRAFFIC_NAME, RepositoryError
from service.repository.traffic_rules import Rules, TrafficError
from service.telemetry.metrics import Metrics

log = structlog.stdlib.get_logger(__name__)


class FilesChanging(Exception):
    """A bundle was written to while it was loaded."""

    def __init__(self) -> None:
        super().__init__("its files changed while it was loaded; write it elsewhere and move it there")


@dataclass(frozen=True, slots=True)
class Refused:
    """What lies in the repository and is not served, by its place there, and why."""

    path: str
    reason: str


class Refusals:
    """The refused places of the repository in `root`."""

    def __init__(self, root: Path, metrics: Metrics) -> None:
        self._root = root
        self._metrics = metrics
        self._reasons: dict[str, str] = {}
        self._unmet: list[str] = []

    def __contains__(self, place: str) -> bool:
        return place in self._reasons

    @property
    def places(self) -> Collection[str]:
        """What is refused."""
        return self._reasons.keys()

    def add(self, place: str, error: Exception) -> None:
        """Refuse `place`, whatever was served from there before, because of `error`."""
        self._reasons[place] = self._reason(place, error)
        self._metrics.reloads.labels(place.partition("/")[0], "refused").inc()
        what = "traffic rules stay as they were" if place == TRAFFIC_NAME else "bundle refused"
        log.error(what, bundle=place, reason=self._reasons[place])

    def drop(self, place: str) -> None:
        """Forget that `place` was refused, if it was."""
        self._reasons.pop(place, None)

    def of(self, places: Collection[str]) -> list[Refused]:
        """The refused ones of `places`."""
        return [Refused(place, reason) for place, reason in sorted(self._reasons.items()) if place in places]

    def all(self, rules: Rules, versions: Mapping[str, Collection[str]]) -> list[Refused]:
        """Every refused place, and each of `rules` that has no effect among the served `versions` of each model."""
        unmet = [f"{name}.{each}" for name, rule in rules.items() for each in rule.unserved(versions.get(name, ()))]
        for each in unmet:
            if each not in self._unmet:
                log.warning("a traffic rule has no effect", rule=each)
        self._unmet = unmet
        return [*self.of(self.places), *(Refused(TRAFFIC_NAME, each) for each in unmet)]

    def nothing_to_serve(self) -> RepositoryError:
        """The error of a repository without a single good bundle."""
        reasons = "".join(f"\n  {each.path}: {each.reason}" for each in self.of(self.places))
        if reasons:
            return RepositoryError(f"No bundle in the model repository {str(self._root)!r} can be served:{reasons}")
        return RepositoryError(
            f"The model repository {str(self._root)!r} holds no bundle. Export one to <name>/<version>/ there, or set "
            "OOD_MODELS (or --models) to another folder."
        )

    def _reason(self, place: str, error: Exception) -> str:
        if isinstance(error, BundleError):
            reason = f"{error.where}: {error.reason}. {error.remedy}."
        elif isinstance(error, EngineError | ProviderUnavailable | RepositoryError | TrafficError | FilesChanging):
            reason = str(error)
        else:
            log.error("a bundle could not be loaded", bundle=place, exc_info=error)
            reason = f"{type(error).__name__}: {error}"
        # Clients see this: where the repository lies on this machine is not theirs to know.
        return reason.replace(f"{self._root.resolve()}/", "")
