"""The served models: finds the model for a request, and is replaced in one step when the repository changes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from service.errors import UnknownModel, UnknownVersion
from service.repository.model import Model
from service.repository.refused import Refused
from service.repository.traffic import Traffic, traffic_of
from service.repository.traffic_rules import Rules, TrafficRule

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Served:
    versions: Mapping[str, Mapping[str, Model]]
    traffic: Mapping[str, Traffic]


class Repository:
    """The served models by name and version, and the refused entries of the repository.

    A caller that runs inputs on a model enters `model.references` before the next `await`, after which the model may be
    replaced.

    Attributes:
        root: The repository's folder.
        refused: The entries that are not served.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refused: Sequence[Refused] = ()
        self._served = _Served({}, {})

    @property
    def names(self) -> list[str]:
        """The served models' names, sorted."""
        return sorted(self._served.versions)

    def versions(self, name: str) -> list[str]:
        """The served versions of `name`, oldest first.

        Raises:
            UnknownModel: The model is not served.
        """
        return list(self._of(self._served.versions, name))

    def traffic(self, name: str) -> Traffic:
        """The versions of `name` that get the requests without a version.

        Raises:
            UnknownModel: The model is not served.
        """
        return self._of(self._served.traffic, name)

    def shadows(self, name: str) -> Sequence[Model]:
        """The shadow versions of `name`; none if the model is not served any more."""
        traffic = self._served.traffic.get(name)
        return () if traffic is None else traffic.shadows

    def shares(self, name: str) -> dict[tuple[str, str], float]:
        """The share of the requests for `name` without a version, by version and role; empty if it is not served."""
        traffic = self._served.traffic.get(name)
        return {} if traffic is None else traffic.shares()

    def get(self, name: str, version: str | None = None, request_id: str | None = None) -> Model:
        """Return a version of the model `name`.

        Args:
            name: The model's name.
            version: The version; None for the version that answers by the traffic rules.
            request_id: Decides whether the canary answers; without an id it does not.

        Raises:
            UnknownModel: The model is not served.
            UnknownVersion: The model is not served in this version.
        """
        if version is None:
            return self.traffic(name).choose(request_id)
        models = self._of(self._served.versions, name)
        try:
            return models[version]
        except KeyError:
            served = ", ".join(models)
            raise UnknownVersion(f"Model {name} has no version {version[:64]!r}; it has {served}.") from None

    def __iter__(self) -> Iterator[Model]:
        for _, versions in sorted(self._served.versions.items()):
            yield from versions.values()

    def serve(self, models: Iterable[Model], rules: Rules) -> None:
        """Serve `models` by `rules` and nothing else; readers on any thread see the old or the new state."""
        versions: dict[str, dict[str, Model]] = {}
        for model in sorted(models, key=lambda model: int(model.version)):
            versions.setdefault(model.name, {})[model.version] = model
        previous = self._served.traffic
        traffic = {
            name: traffic_of(
                rules.get(name, TrafficRule()), served, previous[name].serve.version if name in previous else ""
            )
            for name, served in versions.items()
        }
        self._served = _Served(versions, traffic)

    def _of(self, served: Mapping[str, T], name: str) -> T:
        try:
            return served[name]
        except KeyError:
            raise UnknownModel(
                f"No model {name[:64]!r} is served; GET /v1/models lists the models: {', '.join(self.names)}."
            ) from None
