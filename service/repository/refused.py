"""The entries of the repository that are refused, and why: for the log, the metrics and the API."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from bundle import MANIFEST_NAME, BundleError
from service.inference.onnx_session import EngineError
from service.inference.providers import ProviderUnavailable
from service.repository.snapshot import TRAFFIC_NAME, RepositoryError, model_of
from service.repository.traffic_rules import Rules, TrafficError
from service.telemetry.metrics import Metrics

log = structlog.stdlib.get_logger(__name__)


class FilesChanging(Exception):
    """A bundle's files changed while the bundle was loaded."""

    def __init__(self) -> None:
        super().__init__("its files changed while it was loaded; write it elsewhere and move it there")


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry of the repository that is not served.

    Attributes:
        path: The entry, a path relative to the repository.
        reason: Why it is refused, and the remedy.
    """

    path: str
    reason: str


class Refusals:
    """The refused entries of the repository in `root`."""

    def __init__(self, root: Path, metrics: Metrics) -> None:
        self._root = root
        self._metrics = metrics
        self._reasons: dict[str, str] = {}
        self._ineffective_rules: list[str] = []

    def __contains__(self, entry: str) -> bool:
        return entry in self._reasons

    @property
    def entries(self) -> Collection[str]:
        """The refused entries."""
        return self._reasons.keys()

    def add(self, entry: str, error: Exception) -> None:
        """Refuse `entry` because of `error`; count and log it. An earlier model of the entry may still be served."""
        self._reasons[entry] = self._reason(entry, error)
        self._metrics.reloads.labels(_utf8(model_of(entry)), "refused").inc()
        event = "traffic rules refused" if entry == TRAFFIC_NAME else "bundle refused"
        log.error(event, bundle=_utf8(entry), reason=self._reasons[entry])

    def drop(self, entry: str) -> None:
        """Remove the refusal of `entry`, if there is one."""
        self._reasons.pop(entry, None)

    def of(self, entries: Collection[str]) -> list[Refused]:
        """The refused ones among `entries`, in order of their paths."""
        return [Refused(_utf8(entry), reason) for entry, reason in sorted(self._reasons.items()) if entry in entries]

    def all(self, rules: Rules, versions: Mapping[str, Collection[str]]) -> list[Refused]:
        """Every refused entry, and every traffic rule about a version that is not served.

        Logs a rule when it becomes ineffective.

        Args:
            rules: The traffic rules in force.
            versions: The served versions by model.
        """
        ineffective = [
            f"{name}.{sentence}" for name, rule in rules.items() for sentence in rule.unserved(versions.get(name, ()))
        ]
        for sentence in ineffective:
            if sentence not in self._ineffective_rules:
                log.warning("traffic rule has no effect", rule=sentence)
        self._ineffective_rules = ineffective
        return [*self.of(self.entries), *(Refused(TRAFFIC_NAME, sentence) for sentence in ineffective)]

    def nothing_to_serve(self) -> RepositoryError:
        """The error of a repository without a single valid bundle."""
        setting = "Set OOD_MODELS (or --models)"
        if (self._root / MANIFEST_NAME).is_file():
            repository = self._root.resolve().parent.parent
            return RepositoryError(
                f"{str(self._root)!r} is a bundle. {setting} to its repository, {str(repository)!r}."
            )
        if any(entry.isdecimal() for entry in self.entries):
            repository = self._root.resolve().parent
            return RepositoryError(
                f"{str(self._root)!r} holds the versions of a model. {setting} to its repository, {str(repository)!r}."
            )
        reasons = "".join(f"\n  {refused.path}: {refused.reason}" for refused in self.of(self.entries))
        if reasons:
            return RepositoryError(f"No bundle in the model repository {str(self._root)!r} can be served:{reasons}")
        return RepositoryError(
            f"The model repository {str(self._root)!r} holds no bundle. Export one to <name>/<version>/ there, or set "
            "OOD_MODELS (or --models) to another folder."
        )

    def _reason(self, entry: str, error: Exception) -> str:
        if isinstance(error, BundleError):
            reason = f"{error.where}: {error.reason}. {error.remedy}."
        elif isinstance(error, EngineError | ProviderUnavailable | RepositoryError | TrafficError | FilesChanging):
            reason = str(error)
        else:
            log.error("bundle load failed", bundle=_utf8(entry), exc_info=error)
            reason = f"{type(error).__name__}: {error}"
        # Clients see the reason, and must not learn where the repository lies on this machine.
        return _utf8(reason.replace(f"{self._root.resolve()}/", ""))


def _utf8(text: str) -> str:
    """The text with escapes for bytes of file names that are not UTF-8: metrics and answers must be UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
