"""Which version answers a request that names none, and which ones score it beside."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from service.repository.model import Model
from service.repository.traffic_rules import LATEST, TrafficRule


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of a model's requests that name no version, `percent` go to `canary`, the rest to `serve`, all to `shadows`."""

    serve: Model
    canary: Model | None = None
    percent: float = 0.0
    shadows: tuple[Model, ...] = ()

    def choose(self, request_id: str | None) -> Model:
        """The version that answers. A request that is sent again under its id gets the same one."""
        if self.canary is None or request_id is None:
            return self.serve
        return self.canary if 100 * _place(self.serve.name, request_id) < self.percent else self.serve

    def shares(self) -> dict[tuple[str, str], float]:
        """The share of the requests by version and role (serve, canary, shadow), each in [0, 1]."""
        share = self.percent / 100 if self.canary else 0.0
        shares = {(self.serve.version, "serve"): 1 - share}
        if self.canary:
            shares[self.canary.version, "canary"] = share
        return shares | {(shadow.version, "shadow"): 1.0 for shadow in self.shadows}


def traffic_of(rule: TrafficRule, versions: Mapping[str, Model], before: str) -> Traffic:
    """The traffic by `rule` among the served `versions` (oldest first), of which `before` has answered so far.

    The latest version is the latest that is neither canary nor shadow: exporting one that is to be tried out must not
    put it in charge. What the rule names and is not served has no part; if that is `serve`, `before` goes on.
    """
    canary = versions.get(rule.canary.version) if rule.canary else None
    shadows = tuple(versions[version] for version in rule.shadow if version in versions)
    tried_out = {*rule.shadow, *([rule.canary.version] if rule.canary else [])}
    newest_first = list(versions)[::-1]
    latest = next((version for version in newest_first if version not in tried_out), newest_first[0])
    if rule.serve in versions:
        serve = rule.serve
    elif before in versions and rule.serve != LATEST:
        serve = before
    else:
        serve = latest
    return Traffic(versions[serve], canary, rule.canary.percent if rule.canary else 0.0, shadows)


def _place(model: str, request_id: str) -> float:
    """A place in [0, 1) that is uniform over ids, independent between models, and the same at any percentage."""
    digest = hashlib.blake2b(f"{model} {request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
