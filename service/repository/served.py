"""The model repository as it is served now: which model a request gets, replaced in one step."""

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
    """The models that are served, by name and version, and what was `refused`.

    Whoever gets a model to run something on it enters `model.references` before the next `await`: it may be replaced.
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
        """The served versions of `name`, oldest first. Raises `UnknownModel`."""
        return list(self._of(self._served.versions, name))

    def traffic(self, name: str) -> Traffic:
        """Which versions of `name` get the requests that name none. Raises `UnknownModel`."""
        return self._of(self._served.traffic, name)

    def shadows(self, name: str) -> Sequence[Model]:
        """The versions of `name` that score beside whatever answers; none of a model that is not served any more."""
        traffic = self._served.traffic.get(name)
        return () if traffic is None else traffic.shadows

    def shares(self, name: str) -> dict[tuple[str, str], float]:
        """By version and role, the share of the requests for `name` that name no version; none if it is not served."""
        traffic = self._served.traffic.get(name)
        return {} if traffic is None else traffic.shares()

    def get(self, name: str, version: str | None = None, request_id: str | None = None) -> Model:
        """The model `name` in `version`, or in the one that answers, the canary for its share of `request_id`s.

        Raises `UnknownModel` or `UnknownVersion`.
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
        """From here on serve `models`, by `rules`; in one step, whatever thread reads."""
        versions: dict[str, dict[str, Model]] = {}
        for model in sorted(models, key=lambda model: int(model.version)):
            versions.setdefault(model.name, {})[model.version] = model
        before = self._served.traffic
        traffic = {
            name: traffic_of(
                rules.get(name, TrafficRule()), served, before[name].serve.version if name in before else ""
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
